"""Where two methods meet, as no method imports another.

segmenter: an enhancer learns from a segmentation head, through the gate
matched_networks: a distillation matches the gradients of an enhancer
gains: models that ship learn from a distilled set
"""

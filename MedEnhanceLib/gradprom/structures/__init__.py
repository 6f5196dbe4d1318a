"""Heads that learn from label maps alone: any contrast, structures with sides.

    label maps → common space and priors → painted scans (contrast, shape, scanner at random)
       → locator (where the anatomy lies) and corrector (which structure each voxel shows)

Source of learning from painted label maps: SynthSeg, Billot et al., Medical Image Analysis 86
(2023) 102789; of placing by predicted coordinates: registration by regression, Gopinath et al.,
arXiv 2404.18095. Priors, mixture and corrector are our own arrangement.
"""

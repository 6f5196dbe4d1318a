"""The implicit network: codes of one shared network for every block of every volume.

Source: Yang et al., arXiv 2405.16850. No code of theirs is public: what is not said there is our
reconstruction, and is named so where it stands.
"""

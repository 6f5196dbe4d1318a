"""The library by the name of its package: `import medenhance as me` imports MedEnhanceLib."""

import sys

import MedEnhanceLib

sys.modules[__name__] = MedEnhanceLib

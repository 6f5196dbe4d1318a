"""The module `qt`: all of Qt in one namespace, as Slicer's Python has it.

The names come through Qt.py, so that nothing here depends on which binding lies below; only the
form loader, which Qt.py does not pass on, is asked for by its binding's name (see uiloader.py).
"""

from Qt import QtCore as _QtCore
from Qt import QtGui as _QtGui
from Qt import QtNetwork as _QtNetwork
from Qt import QtWidgets as _QtWidgets

from SlicerHost import pythonqt as _pythonqt

#: PySide's own, which PythonQt does not have in this form.
_NOT_IN_SLICER = {"Signal", "Slot", "Property", "QtMsgType", "__version__", "qVersion"}

for _module in (_QtCore, _QtGui, _QtWidgets, _QtNetwork):
    for _name in vars(_module):
        if not _name.startswith("_") and _name not in _NOT_IN_SLICER:
            globals()[_name] = getattr(_module, _name)

_pythonqt.behave()

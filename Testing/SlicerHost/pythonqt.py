"""Makes PySide6's classes behave as PythonQt's do, strictly.

Properties are values and not methods, an unknown attribute cannot be written, signals are connected
by their full signature, constructors take no keywords. What PythonQt would let pass in silence, or
with a line on the terminal, is kept in `refused`: a test that leaves anything there has failed.
"""

import functools
import gc
import os
import types

import numpy as np
from Qt import QtCore, QtWidgets
from shiboken6 import getCppPointer, isValid

QObject = QtCore.QObject
refused = []
#: Kinds of properties whose conversions differ between PythonQt and PySide.
KINDS = {"QString", "bool", "int", "double", "QStringList"}
#: C++ types of signals' arguments in Python; those of Slicer are objects.
TYPES = {"int": int, "bool": bool, "QString": str, "double": float, "QStringList": list}
_METHOD = type(QObject.objectName)


def convert(kind, value, where):
    """The value as a property of that kind would take it from PythonQt."""
    if isinstance(value, np.generic | os.PathLike):
        refused.append(f"{where}: {type(value).__name__} is only sometimes accepted, convert it")
        value = os.fspath(value) if isinstance(value, os.PathLike) else value.item()
    if kind == "QString" and not isinstance(value, str):
        refused.append(f"{where}: {value!r} becomes the text {str(value)!r}")
        return str(value)
    if kind == "QStringList" and isinstance(value, str):
        refused.append(f"{where}: {value!r} becomes a list of its characters")
        return list(value)
    if kind in {"bool", "int", "double"} and not isinstance(value, int | float):
        raise AttributeError(f"{where} does not accept {value!r} ({type(value).__name__})")
    if kind == "int" and isinstance(value, float):
        refused.append(f"{where}: {value!r} loses its fraction")
        return int(value)
    return value


class QtProperty:
    """A property of a Qt class: on an instance it is its value, on the class the native method."""

    def __init__(self, name, kind, native):
        self.name, self.native = name, native
        self.kind = "double" if kind == "float" else kind

    def __get__(self, instance, owner):
        if instance is None:
            return self if self.native is None else self.native.__get__(None, owner)
        native = isinstance(self.native, _METHOD)
        value = self.native(instance) if native else instance.property(self.name)
        return tuple(value) if self.kind == "QStringList" else value

    def __set__(self, instance, value):
        where = f"property '{self.name}' of {type(instance).__name__}"
        if not instance.setProperty(self.name, convert(self.kind, value, where)):
            raise AttributeError(f"{where} does not accept {value!r} ({type(value).__name__})")


def find(cls, name):
    return next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)


# --- signals by signature ------------------------------------------------------------------------


def signal_of(sender, signature):
    """The signal of that full signature, or None, which is written down."""
    signature = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    name, _, arguments = signature.rstrip(")").partition("(")
    known = {each for each in getattr(sender, "_signals", ()) if each.startswith(f"{name}(")}
    other = object if known else None
    known = known or set(_native_signals(sender, name))
    if signature not in known:
        refused.append(f"{sender.metaObject().className()} has no signal {signature}")
        return None
    types_ = tuple(TYPES.get(each, other or each) for each in arguments.split(",") if each)
    found = getattr(sender, name)
    return found[types_ if len(types_) > 1 else types_[0]] if types_ and len(known) > 1 else found


def _native_signals(sender, name):
    meta = sender.metaObject()
    for method in map(meta.method, range(meta.methodCount())):
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and method.name() == name:
            yield bytes(method.methodSignature()).decode()


def _by_signature(verb):
    """QObject.connect or disconnect: to a Python callable, or an object's slot by its signature."""

    def method(self, native, signature, *receiver):
        if not isinstance(signature, str):
            return native(signature, *receiver)  # PySide6's own form, as its singleShot uses it
        signal, slot = signal_of(self, signature), receiver[0]
        if len(receiver) > 1:
            slot = getattr(receiver[0], receiver[1].partition("(")[0], None)
        if not callable(slot):
            refused.append(f"{type(receiver[0]).__name__} has no slot {receiver[-1]}")
        if signal is None or not callable(slot):
            return False
        try:
            return getattr(signal, verb)(slot) is not False
        except (RuntimeError, TypeError):
            if verb == "connect":
                raise
            return False  # it was not connected

    return method


# --- connections that hold their slots -----------------------------------------------------------

#: Address of a sender -> (signal, slot) of each connection, until the sender is destroyed.
_held = {}


class Signal:
    """A signal of an object, whose connections hold their slots strongly, as PythonQt's do."""

    def __init__(self, sender, name, native):
        self._sender, self._name, self._native = sender, name, native

    def __getitem__(self, types_):
        return Signal(self._sender, self._name, self._native[types_])

    def __call__(self, *values):
        self._native.emit(*values)

    emit = __call__

    def connect(self, slot, *kind):
        if isinstance(slot, Signal):
            return self._native.connect(slot._native, *kind)
        address = getCppPointer(self._sender)[0]
        if address not in _held:
            _held[address] = []
            destroyed = _native_attribute(self._sender, "destroyed")
            destroyed.connect(lambda *_: _held.pop(address, None))
        _held[address].append((self._name, slot))
        return self._native.connect(slot, *kind)

    def disconnect(self, *slots):
        done = self._native.disconnect(*slots)
        held = _held.get(getCppPointer(self._sender)[0], [])
        gone = [each for each in held if each[0] == self._name and slots in ((), (each[1],))]
        for each in gone if not slots else gone[:1]:
            held.remove(each)
        return done


def _delete_later(self, native):
    """Refuse what deletes a widget without a parent twice: connections that hold its wrapper.

    They go in its destructor, and the wrapper with them, which deletes the widget once more.
    """
    isAlone = self.isWidgetType() and self.parent() is None
    senders = (self, *self.findChildren(QObject)) if isAlone else ()
    held = [each for sender in senders for each in _held.get(getCppPointer(sender)[0], ())]
    leading = _leading_to(self, [slot for _signal, slot in held])
    for signal, slot in held:
        if id(slot) in leading:
            refused.append(f"{type(self).__name__}.deleteLater: disconnect {signal} first")
    native()


def _leading_to(wrapper, slots):
    """Return the id of each object from which references lead to a wrapper, starting from slots.

    All at once, as most slots lead to the same objects. Modules and classes lead nowhere.
    """
    due, known, holders = list(slots), {}, {}
    while due:
        each = due.pop()
        if each is wrapper or id(each) in known or isinstance(each, type | types.ModuleType):
            continue
        known[id(each)] = each  # its id stays its own
        is_code = isinstance(each, types.FunctionType)
        referents = (each.__closure__ or ()) if is_code else gc.get_referents(each)
        for referent in referents:
            holders.setdefault(id(referent), []).append(id(each))
        due += referents
    leading, due = set(), [id(wrapper)]
    while due:
        found = due.pop()
        if found not in leading:
            leading.add(found)
            due += holders.get(found, ())
    return leading


_native_attribute = QObject.__getattribute__


# --- attributes ----------------------------------------------------------------------------------


def set_attribute(self, name, value):
    cls = type(self)
    found = find(cls, name)
    is_native = cls.__module__.startswith("PySide6.") or "stand_in" in vars(cls)
    # PySide6 keeps as attributes: its description of slots, bound signals, a form's children.
    is_own = name.startswith("__") or type(value).__name__ == "SignalInstance"
    is_child = isinstance(value, QObject) and value.objectName == name
    if hasattr(found, "__set__"):
        found.__set__(self, value)
    elif is_own or is_child or not is_native:
        self.__dict__[name] = value
    elif found is not None:
        raise AttributeError(f"'{name}' can not be overwritten on {cls.__name__} object")
    elif name.encode() in map(bytes, self.dynamicPropertyNames()):
        self.setProperty(name, value)
    else:
        raise AttributeError(
            f"'{name}' does not exist on {cls.__name__} and creating new attributes on C++ objects "
            "is not allowed"
        )


def _meta_object(self, native):
    """The class's own: PySide6 would let it die with an instance that a form brought."""
    return type(self).staticMetaObject


_INSTEAD = {
    "connect": _by_signature("connect"), "disconnect": _by_signature("disconnect"),
    "metaObject": _meta_object, "deleteLater": _delete_later,
}  # fmt: skip


def _get_attribute(native):
    def __getattribute__(self, name):
        if name[0] != "_" and not isValid(self):
            raise ValueError(f"Trying to use '{name}' of a destroyed {type(self).__name__} object")
        if name in _INSTEAD:
            return functools.partial(_INSTEAD[name], self, native(self, name))
        try:
            found = native(self, name)
        except AttributeError:
            if name[:2] == "__" or name.encode() not in map(bytes, self.dynamicPropertyNames()):
                raise
            return self.property(name)
        return Signal(self, name, found) if type(found).__name__ == "SignalInstance" else found

    return __getattribute__


# --- the change itself ---------------------------------------------------------------------------


def _add_properties(cls):
    """The class's own, and setters that check what they set: `setText(None)` shows "None"."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        described = meta.property(index)
        name, native = described.name(), vars(cls).get(described.name())
        if isinstance(native, QtProperty) or (native is None and index < meta.propertyOffset()):
            continue
        inherited = find(cls, name)
        inherited = inherited.native if isinstance(inherited, QtProperty) else inherited
        setattr(cls, name, QtProperty(name, described.typeName(), inherited))
        setter = "set" + name[0].upper() + name[1:]
        if described.typeName() == "QString" and isinstance(vars(cls).get(setter), _METHOD):
            setattr(cls, setter, _checked(vars(cls)[setter], f"{cls.__name__}.{setter}"))


def _checked(native, where):
    return lambda self, value, *more: native(self, convert("QString", value, where), *more)


def _without_keywords(cls):
    native = cls.__init__

    def __init__(self, *arguments, **keywords):
        if keywords:
            raise ValueError(f"{cls.__name__} takes no keyword arguments: {', '.join(keywords)}")
        native(self, *arguments)

    return __init__


def _watched(native, self, *flags):
    """QEventLoop.exec_, refused where a second click could begin anew what waits for its end.

    Excluding user input only delays that: clicks are delivered afterwards, to a hidden dialog too.
    """
    if QtWidgets.QApplication.activeModalWidget() is None:
        refused.append("QEventLoop.exec_: a second click recurses, show a modal dialog")
    return native(self, *flags)


def _send(native, receiver, *more):
    """Send or post an event, by which Slicer crashes where nothing is there to receive it."""
    if receiver is None:
        raise ValueError("an event for None, such as no focusWidget(): Qt would crash")
    return native(receiver, *more)


def _subclasses(cls):
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def behave():
    """Change every class that Qt brought, once."""
    classes = [QObject, *dict.fromkeys(_subclasses(QObject))]
    for cls in classes:
        _add_properties(cls)
    for cls in classes:
        cls.__init__, cls.__setattr__ = _without_keywords(cls), set_attribute
        if "exec" in vars(cls):
            cls.exec_ = cls.exec
        if "__getattribute__" in vars(cls):
            cls.__getattribute__ = _get_attribute(cls.__getattribute__)
    loop, application = QtCore.QEventLoop, QtCore.QCoreApplication
    native = loop.exec_
    loop.exec_ = lambda self, *flags: _watched(native, self, *flags)
    for name in ("sendEvent", "postEvent"):
        send = functools.partial(_send, getattr(application, name))
        setattr(application, name, staticmethod(send))
    QObject.name = property(
        lambda self: self.objectName, lambda self, value: self.setObjectName(value)
    )
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = lambda self: self.deleteLater()

"""The list of devices on a page: what is here, and why the automatic choice is what it is."""

from slicer.i18n import tr as _


class DeviceChoice:
    """Fills a combo box, and a label with the reason, from what the `doctor` job finds.

    onChange: called when the job has told of devices.
    """

    def __init__(self, runner, comboBox, reasonLabel, onChange):
        self._runner, self._comboBox, self._label = runner, comboBox, reasonLabel
        self._onChange = onChange
        self._devices = {"auto": _("Automatic"), "cpu": _("CPU")}
        self._offered = None
        self._reason = ""
        self._job = None

    def ask(self):
        """Find out, once; that a worker is warm afterwards helps the first preview."""
        if self._job is None:
            self._job = self._runner.submit("doctor", {}, title=_("Check this computer"))
            self._job.onFinished(self._onFinished)

    def forgetFailure(self):
        """Ask again the next time where the last answer did not come."""
        if self._job is not None and self._job.state in ("failed", "cancelled"):
            self._job = None

    def show(self, device):
        """Show a choice, also of a device that is not here."""
        comboBox, devices = self._comboBox, dict(self._devices)
        devices.setdefault(device, _("{device} (not found here)").format(device=device))
        if devices != self._offered:  # filling an open list anew would close it
            self._offered = devices
            comboBox.clear()
            for name, text in devices.items():
                comboBox.addItem(text, name)
        comboBox.currentIndex = comboBox.findData(device)
        comboBox.toolTip = comboBox.currentText
        reason = self._reason if device == "auto" else ""
        self._label.text = reason
        self._label.visible = bool(reason)

    def cleanup(self):
        self._onChange = None

    def _onFinished(self, job):
        if job.state != "done" or self._onChange is None:
            return
        choice = job.result.get("choice") or {}
        if choice.get("name"):
            reason = choice.get("reason") or ""
            self._devices["auto"] = _("Automatic: {name}").format(name=choice["name"].upper())
            self._reason = reason[:1].upper() + reason[1:]
        for device in job.result.get("devices") or ():
            name, what = device.get("name", ""), device.get("what") or ""
            self._devices[name] = f"{name.upper()}: {what}" if what else name.upper()
        self._onChange()

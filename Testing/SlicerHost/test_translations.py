"""The translation files hold what the panel says, and say it whole."""

from __future__ import annotations

import re
import string
from collections import Counter
from pathlib import Path

import pytest

from SlicerHost import translations

_FORMATTER = string.Formatter()
FILES = sorted((translations.MODULE / translations.FOLDER).glob("*.ts"))
FORM = """<ui version="4.0"><class>Sketch</class><widget class="QWidget" name="Sketch">
<property name="windowTitle"><string>A &amp;window</string></property>
<property name="text"><string notr="true">…</string></property>
<property name="toolTip"><string/></property>
<property name="nodeTypes"><stringlist notr="true"><string>vtk</string></stringlist></property>
</widget></ui>"""
TRANSLATION = """<TS version="2.1" language="es"><context><name>pages.load</name>
<message><source>Load</source><translation>Cargar</translation></message>
<message><source>Gone</source><translation>Ido</translation></message>
</context></TS>"""


def kept(text: str) -> Counter[str]:
    """What a translation has to keep: fields, tags, mnemonics, symbols, the space around it."""
    fields = [f"{{{name}!{how}:{form}}}" for _, name, form, how in _FORMATTER.parse(text) if name]
    marks = re.findall(r"<[^>]+>|;;|\*\.\w+|&(?=\w)|[%…\n]", text)
    return Counter([*fields, *marks, f"{text[0].isspace()} {text[-1].isspace()}"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_is_translated_and_none_that_is_gone(path: Path) -> None:
    texts = translations.texts(translations.MODULE)
    wanted = {(context, text) for context, each in texts.items() for text in each}
    assert set(translations.read(path)) == wanted, "run: python -m SlicerHost.translations"
    assert translations.updated(path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_translation_keeps_what_is_filled_in_and_marked(path: Path) -> None:
    """Slicer takes none that lacks a field; the rest would be noticed by users alone."""
    changed = {
        (text, there)
        for (_context, text), there in translations.read(path).items()
        if kept(text) != kept(there)
    }
    assert changed == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_widgets_of_a_form_have_the_same_key(path: Path) -> None:
    forms = [form.stem for form in translations.MODULE.rglob("*.ui")]
    keys = Counter(
        (context, key.lower())
        for (context, _text), there in translations.read(path).items()
        if context in forms
        for key in re.findall(r"&(\w)", there)
    )
    assert [key for key, count in keys.items() if count > 1] == []


def test_what_is_lost_in_a_translation_is_found() -> None:
    assert kept("&Open {name!r:.1f}: 9 %…") == kept("{name!r:.1f} &abrir: 9 %…")
    for text in ("Open {name!r:.1f}: 9 %…", "&Open {name}: 9 %…", "&Open {name!r:.1f}: 9…"):
        assert kept(text) != kept("&Open {name!r:.1f}: 9 %…")
    assert kept("<b>One</b>") != kept("<b>Uno<b>")
    assert kept(" dB") != kept("dB")


def test_an_update_adds_new_texts_as_unfinished_and_removes_others(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/__init__.py").touch()
    code = 'title = _("Load")\nother = _("Say \'it\'" " twice")\ntranslate("Core", "Filtering")\n'
    (tmp_path / "pages/load.py").write_text(code)
    (tmp_path / "Sketch.ui").write_text(FORM, encoding="utf-8")
    path = tmp_path / "Sketch_es.ts"
    path.write_text(TRANSLATION)
    assert translations.texts(tmp_path) == {
        "Sketch": ["A &window"],
        "pages.load": ["Load", "Say 'it' twice"],
    }
    path.write_text(translations.updated(path, tmp_path), encoding="utf-8")
    assert path.read_text(encoding="utf-8").count('type="unfinished"') == 2
    assert translations.read(path) == {("pages.load", "Load"): "Cargar"}
    assert translations.updated(path, tmp_path) == path.read_text(encoding="utf-8")

"""The few words that a voice says for what is written in signs, by language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """Words for the dots and the @ of addresses, for a single "&", and in place of code."""

    dot: str
    at: str
    and_: str
    code: str


_WORDS = {
    "ar": Words("نقطة", "آت", "و", "لا تُقرأ الشيفرة بصوت عالٍ."),
    "de": Words("Punkt", "ät", "und", "Der Code wird nicht vorgelesen."),
    "en": Words("dot", "at", "and", "The code is not read aloud."),
    "es": Words("punto", "arroba", "y", "El código no se lee en voz alta."),
    "fr": Words("point", "arobase", "et", "Le code n'est pas lu à voix haute."),
    "hi": Words("डॉट", "ऐट", "और", "कोड पढ़कर नहीं सुनाया जाता।"),
    "it": Words("punto", "chiocciola", "e", "Il codice non viene letto ad alta voce."),
    "ja": Words("ドット", "アット", "と", "コードは読み上げません。"),
    "ko": Words("점", "골뱅이", "그리고", "코드는 읽지 않습니다."),
    "nl": Words("punt", "apenstaartje", "en", "De code wordt niet voorgelezen."),
    "pl": Words("kropka", "małpa", "i", "Kod nie jest czytany na głos."),
    "pt": Words("ponto", "arroba", "e", "O código não é lido em voz alta."),
    "ru": Words("точка", "собака", "и", "Код не зачитывается вслух."),
    "tr": Words("nokta", "et", "ve", "Kod sesli okunmaz."),
    "zh": Words("点", "艾特", "和", "代码不朗读。"),
}


def words_of(language: str) -> Words:
    """The words of a language by its code ("de", "pt-BR", "zh_CN"); English ones where there are none."""
    return _WORDS.get(language.replace("_", "-").split("-")[0].lower(), _WORDS["en"])

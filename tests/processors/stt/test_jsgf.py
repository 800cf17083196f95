"""The grammar check: what is wrong is found, with its line, before a decoder sees it."""

import pytest
from voxline.processors.stt.jsgf import GrammarError, Word, check_grammar

HEAD = "#JSGF V1.0;\ngrammar rover;\n"


def test_a_right_grammar_gives_its_public_rule_and_its_words_with_their_lines():
    grammar = check_grammar(
        "#JSGF V1.0 UTF-8 en;  // the header may name a language\n"
        "grammar rover;\n"
        "/* two lines\n   of comment */\n"
        "public <command> = /2.0/ go <way> {go} | (stop | halt)+ [now] | don't <rover.way> | <NULL>;\n"
        "<way> = forward\n  | back;\n"
    )
    assert grammar.public_rule == "command"
    assert grammar.words == (
        Word("go", 5),
        Word("stop", 5),
        Word("halt", 5),
        Word("now", 5),
        Word("don't", 5),
        Word("forward", 6),
        Word("back", 7),
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1 of the grammar: expected the header '#JSGF V1.0;', found the end of the grammar"),
        ("hello", "line 1 of the grammar: expected the header '#JSGF V1.0;', found 'hello'"),
        ("#JSGF V1.0;\ngo;", "line 2 of the grammar: expected 'grammar', found 'go'"),
        (HEAD, "the grammar has no public rule"),
        (HEAD + "<a> = go;", "the grammar has no public rule"),
        (
            HEAD + "public <a> = go (forward ;",
            "line 3 of the grammar: expected the ')' for the '(' of line 3",
        ),
        (HEAD + "public <a> = ;", "line 3 of the grammar: expected a word, a <rule> or a group in brackets"),
        (HEAD + "public <a> = go |\n;", "line 4 of the grammar: expected a word"),
        (
            HEAD + "public <a> = go\n<b> = x;",
            "line 4 of the grammar: expected ';' or '|' or another word, found '='",
        ),
        (HEAD + "public <a> = go <way>;", "line 3 of the grammar: there is no rule <way>. There are: <a>"),
        (HEAD + "public <a> = <b>;\n<b> = x\n<a>;", "line 5 of the grammar: <a> refers to itself"),
        (HEAD + "public <a> = x;\n<b> = y <b>;", "line 4 of the grammar: <b> refers to itself"),
        (HEAD + "public <a> = x;\n<a> = y;", "line 4 of the grammar: <a> is defined twice, first in line 3"),
        (HEAD + "public <a> = x;\npublic <b> = y;", "line 4 of the grammar: a second public rule"),
        (
            HEAD + 'public <a> = "good bye";',
            "line 3 of the grammar: '\"' has no meaning here. Write the words",
        ),
        (HEAD + "public <a> = x \\;;", "line 3 of the grammar: '\\\\' has no meaning here"),
        (HEAD + "import <other.*>;", "line 3 of the grammar: 'import' is not supported"),
        (HEAD + "public <> = x;", "line 3 of the grammar: '<>' has no name in it"),
        (HEAD + "public <NULL> = x;", "line 3 of the grammar: <NULL> is predefined"),
    ],
)
def test_a_wrong_grammar_is_an_error_that_names_the_line(text: str, error: str):
    with pytest.raises(GrammarError) as caught:
        check_grammar(text)
    assert str(caught.value).startswith(error)

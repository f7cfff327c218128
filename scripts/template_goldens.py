"""Renders chat templates with transformers' own machinery, for make_goldens.py.

The Rust renderer is compared with these. `strftime_now` is pinned to NOW: the goldens carry the
moment in their "now" field, and a test has to give its renderer the same clock.
"""

import datetime as real_datetime
import hashlib
import json
import pathlib

# Day, month, hour and minute all have a leading zero, so "%d" and "%-d" differ.
NOW = real_datetime.datetime(2026, 1, 2, 3, 4, 5)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Looks a word up & gives its <first> meaning — \"short\" or 'long'.",
            "parameters": {
                "type": "object",
                # Not in alphabetical order: the order given has to survive.
                "properties": {
                    "word": {"type": "string", "description": "the word"},
                    "detail": {"type": "number", "default": 0.5, "minimum": 0, "maximum": 1.0},
                    "cases": {"type": "array", "items": {"enum": ["grüße", "日本", "a\tb"]}},
                    "all": {"type": ["boolean", "null"], "default": None},
                },
                "required": ["word"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two integers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    },
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def tool(text, **more):
    return {"role": "tool", "content": text, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


CONVERSATIONS = {
    "user": {"messages": [user("How many legs have 3 spiders?")]},
    "system": {"messages": [system("Answer with one word."), user("Is water wet?")]},
    "spaces": {"messages": [system("  Two leading blanks, two trailing. \n\n"),
                            user("\n\n  a\tb  \n"), assistant("\n\nyes \n"), user(" ")]},
    "unicode": {"messages": [user("Grüße, 日本語 🙂 é ﬁ <&> \"quotes\" 'single' \\n {{ not }} {% a %}"),
                             assistant("naïve → ∑"), user("次")]},
    "multi": {"messages": [
        system("You count."),
        user("2 + 2?"),
        assistant("<think>\nTwo and two.\n\nThat is four.\n</think>\n\n4"),
        user("And 3 + 3?"),
        assistant("<think>\n\n</think>\n\n6"),
        user("Thanks. 4 + 4?"),
    ]},
    "ends_with_assistant": {"messages": [
        user("Name a colour."),
        assistant("<think>\nRed is one.\n</think>\n\nRed"),
        user("Another."),
        assistant("<think>\n\nBlue.\n\n</think>\n\n\nBlue"),
    ]},
    "half_thought": {"messages": [
        user("Go on."), assistant("no opening marker here\n</think>\n\ndone"), user("More."),
        assistant("<think>\nnever closed"),
    ]},
    "reasoning_content": {"messages": [
        user("1 + 1?"),
        assistant("2", reasoning_content="\nOne and one.\n"),
        user("2 + 1?"),
        assistant("3", reasoning_content="Two and one.\n\nThree."),
    ]},
    "tools_none_used": {"messages": [system("Use tools."), user("Hello.")], "tools": TOOLS},
    "tools_no_system": {"messages": [user("What does 'gnu' mean?")], "tools": TOOLS},
    "tools_called": {"messages": [
        user("Look up gnu & emu."),
        assistant("<think>\nI look both up.\n</think>\n\nOne moment.", tool_calls=[
            call("lookup", {"word": "gnu", "detail": 0.25}),
            call("lookup", {"word": "emu <big>", "all": None, "cases": ["x", True, 2]}),
        ]),
        tool("a large antelope"),
        tool("{\"meaning\": \"a bird\"}"),
        assistant("<think>\nBoth found.\n</think>\n\nAn antelope and a bird."),
        user("And 19 + 23?"),
        assistant("", tool_calls=[call("add", {"a": 19, "b": 23})]),
        tool("42"),
    ], "tools": TOOLS},
    "tool_called_once": {"messages": [
        system("Use tools."),
        user("19 + 23?"),
        assistant("", tool_calls=[call("add", {"b": 23, "a": 19})]),
        tool("42"),
        assistant("<think>\n42.\n</think>\n\n42"),
        user("Good."),
    ], "tools": TOOLS[1:]},
    "tool_string_arguments": {"messages": [
        user("19 + 23?"),
        assistant(None, tool_calls=[call("add", "{\"a\": 19, \"b\": 23}")]),
        tool("42"),
        assistant("42"),
    ], "tools": TOOLS[1:]},
    "no_messages_of_user": {"messages": [system("Alone.")]},
    "empty": {"messages": []},
    "parts": {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "First."},
                                     {"type": "image"},
                                     {"type": "text", "text": "Second."}]},
    ]},
}

SPECIALS = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}

# template -> (conversation, options) pairs. Options are further template variables, and
# add_generation_prompt.
OWN = {
    "plain.jinja": [
        ("user", {"add_generation_prompt": True}),
        ("system", {"add_generation_prompt": True}),
        ("spaces", {"add_generation_prompt": False}),
        ("unicode", {"add_generation_prompt": True}),
        ("multi", {"add_generation_prompt": False}),
        ("empty", {"add_generation_prompt": True}),
    ],
    "reasoning.jinja": [
        ("user", {"add_generation_prompt": True}),
        ("user", {"add_generation_prompt": True, "enable_thinking": True}),
        ("user", {"add_generation_prompt": True, "enable_thinking": False}),
        ("user", {"add_generation_prompt": True, "enable_thinking": None}),
        ("user", {"add_generation_prompt": False}),
        ("system", {"add_generation_prompt": True}),
        ("spaces", {"add_generation_prompt": True}),
        ("unicode", {"add_generation_prompt": False}),
        ("multi", {"add_generation_prompt": True}),
        ("multi", {"add_generation_prompt": True, "enable_thinking": False}),
        ("ends_with_assistant", {"add_generation_prompt": False}),
        ("half_thought", {"add_generation_prompt": False}),
        ("reasoning_content", {"add_generation_prompt": False}),
        ("tools_none_used", {"add_generation_prompt": True}),
        ("tools_no_system", {"add_generation_prompt": True}),
        ("tools_called", {"add_generation_prompt": True}),
        ("tool_string_arguments", {"add_generation_prompt": False}),
    ],
    "tools.jinja": [
        ("user", {"add_generation_prompt": True}),
        ("system", {"add_generation_prompt": True, "date_string": "31 December 1999"}),
        ("multi", {"add_generation_prompt": True}),
        ("tools_none_used", {"add_generation_prompt": True}),
        ("tools_called", {"add_generation_prompt": True}),
        ("tool_called_once", {"add_generation_prompt": False, "stop_at": 3}),
        ("tool_called_once", {"add_generation_prompt": True}),
        ("parts", {"add_generation_prompt": True}),
        ("no_messages_of_user", {"add_generation_prompt": True}),
        ("empty", {"add_generation_prompt": True}),
    ],
    "whitespace.jinja": [
        ("user", {"add_generation_prompt": True}),
        ("spaces", {"add_generation_prompt": False}),
        ("multi", {"add_generation_prompt": True}),
    ],
    # Python's own way to write values; real templates seldom depend on it.
    "python.jinja": [
        ("tools_called", {"add_generation_prompt": False, "numbers": [
            0, -1, 1.0, 0.1, 2.5e-7, 1e16, 123456789012, True, None, "s'\"<é"]}),
    ],
}

# Cases that a renderer may miss without missing any model we know.
EDGE = {"python.jinja"}

# Tried on every real template; those that a template cannot render are left out.
REAL = [
    (name, {"add_generation_prompt": True})
    for name in ("user", "system", "spaces", "unicode", "multi", "half_thought",
                 "tools_none_used", "tools_no_system", "tools_called", "tool_called_once")
] + [
    (name, {"add_generation_prompt": False})
    for name in ("user", "multi", "ends_with_assistant", "half_thought", "reasoning_content",
                 "tools_called", "tool_string_arguments")
] + [
    (name, {"add_generation_prompt": True, "enable_thinking": thinking})
    for name in ("user", "multi", "tools_none_used") for thinking in (True, False)
]


def versions():
    import jinja2
    import transformers

    return {"transformers": transformers.__version__, "jinja2": jinja2.__version__}


class Pinned(real_datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(NOW.year, NOW.month, NOW.day, NOW.hour, NOW.minute, NOW.second)


def render(template, conversation, options):
    """What apply_chat_template(tokenize=False) gives, or the error a template raised itself."""
    import jinja2
    from transformers.utils import chat_template_utils as machinery

    machinery.datetime = Pinned
    try:
        rendered, _ = machinery.render_jinja_template(
            conversations=[conversation["messages"]],
            tools=conversation.get("tools"),
            chat_template=template,
            **options,
        )
    except jinja2.exceptions.UndefinedError:
        raise
    except jinja2.exceptions.TemplateError as e:
        return {"error": e.message}
    return {"rendered": rendered[0]}


def dump(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def used(cases):
    names = [c["conversation"] for c in cases]
    return {n: CONVERSATIONS[n] for n in CONVERSATIONS if n in names}


def make_own(folder):
    """golden/templates/golden.json from the templates beside it, which are written by hand."""
    cases = []
    for name, tries in OWN.items():
        text = (folder / name).read_text(encoding="utf-8")
        for conversation, options in tries:
            options = {**SPECIALS, **options}
            result = render(text, CONVERSATIONS[conversation], options)
            cases.append({"template": name, "conversation": conversation, "options": options,
                          "edge": name in EDGE, **result})
    dump(folder / "golden.json", {
        "made_with": versions(), "now": NOW.isoformat(),
        "conversations": used(cases), "cases": cases,
    })
    errors = sum("error" in c for c in cases)
    return f"{len(cases)} renderings of {len(OWN)} templates, {errors} of them errors"


def make_real(folder, fetched):
    """golden/templates/real.json: hashes only, since the templates are not ours to keep."""
    index = json.loads((fetched / "index.json").read_text(encoding="utf-8"))
    models, all_cases = [], []
    for entry in index:
        raw = (fetched / entry["file"]).read_bytes()
        if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
            raise SystemExit(f"{entry['file']} is not what fetch_templates.py wrote")
        text = raw.decode("utf-8")
        cases, full = [], []
        for conversation, options in REAL:
            try:
                result = render(text, CONVERSATIONS[conversation],
                                {**entry["special_tokens"], **options})
            except Exception:  # a type error of Python's inside the template: nothing to match
                continue
            case = {"conversation": conversation, "options": options}
            if "error" in result:
                case["error"] = result["error"]
            else:
                data = result["rendered"].encode("utf-8")
                case["bytes"] = len(data)
                case["sha256"] = hashlib.sha256(data).hexdigest()
            cases.append(case)
            full.append({**case, **result})
        models.append({"name": entry["name"], "file": entry["file"], "sha256": entry["sha256"],
                       "special_tokens": entry["special_tokens"], "cases": cases})
        all_cases += cases
        # Beside the fetched template, never in the repository: what to diff when a hash differs.
        dump(fetched / (pathlib.Path(entry["file"]).stem + ".renderings.json"), full)
    folder.mkdir(parents=True, exist_ok=True)
    # One case per line keeps the file small and its diffs readable.
    head = {"made_with": versions(), "now": NOW.isoformat(), "conversations": used(all_cases)}
    lines = [json.dumps(head, ensure_ascii=False)[:-1] + ',\n"models": [']
    for i, m in enumerate(models):
        cases = m.pop("cases")
        lines.append(json.dumps(m, ensure_ascii=False)[:-1] + ', "cases": [')
        lines.append(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases))
        lines.append("]}" + ("," if i + 1 < len(models) else ""))
    lines.append("]}")
    (folder / "real.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    json.loads((folder / "real.json").read_text(encoding="utf-8"))
    return f"{len(all_cases)} renderings of {len(models)} templates"

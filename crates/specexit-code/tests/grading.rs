//! Finding the code in answers, and grading it.

use std::path::Path;
use std::process::Command;

use specexit_code::{Isolation, Limits, Outcome, Sandbox, Task, extract_code, program};

fn task() -> Task {
    Task {
        prompt: concat!(
            "from typing import List\n\n\n",
            "def half(x: int) -> int:\n    return x // 2\n\n\n",
            "def middle(values: List[int]) -> int:\n",
            "    \"\"\" The value in the middle of the sorted list, the lower one of two.\n",
            "    >>> middle([3, 1, 2])\n    2\n    \"\"\"\n",
        )
        .to_owned(),
        entry_point: "middle".to_owned(),
        test: concat!(
            "def check(candidate):\n",
            "    assert candidate([3, 1, 2]) == 2\n",
            "    assert candidate([4, 1, 3, 2]) == 2\n",
            "    assert candidate([7]) == 7, 'a single value'\n",
        )
        .to_owned(),
    }
}

const RIGHT: [&str; 9] = [
    // A fenced block with a sentence around it; what was only thought does not count.
    "<think>```python\ndef middle(v): return 0\n```</think>Sort it:\n\n```python\ndef middle(values):\n    \
     return sorted(values)[(len(values) - 1) // 2]\n```\nThis is fast.",
    // A helper of the prompt, and types that the prompt imports.
    "```\ndef middle(values: List[int]) -> int:\n    return sorted(values)[half(len(values) - 1)]\n```",
    // The last block that defines the function, not the example after it.
    "```python\ndef middle(values): return 1\n```\nBetter:\n```py\nimport statistics\n\ndef middle(values):\n    \
     return statistics.median_low(values)\n```\nUse it:\n```python\nprint(middle([1]))\n```",
    // No language of a shell counts.
    "```python\ndef middle(values):\n    return sorted(values)[half(len(values) - 1)]\n```\n\
     ```bash\npython3 middle.py\n```",
    // A body that goes on where the prompt ends, with and without its indentation.
    "    values = sorted(values)\n    return values[(len(values) - 1) // 2]\n",
    "```python\nvalues = sorted(values)\nreturn values[(len(values) - 1) // 2]\n```",
    // Code without a fence.
    "Here is the code.\n\nfrom typing import List\n\nLOW = 1\n\ndef middle(values: List[int]) -> int:\n    \
     return sorted(values)[(len(values) - LOW) // 2]\n\nIt sorts the values.",
    // A main part that would wait for input; an import that must come first; a cut-off fence.
    "```python\nfrom __future__ import annotations\ndef middle(values: list[int]) -> Undefined:\n    \
     return sorted(values)[(len(values) - 1) // 2]\n\nif __name__ == '__main__':\n    \
     print(middle(eval(input())))",
    // A block inside a list.
    "1. Code:\n   ```python\n   def middle(values):\n       return sorted(values)[(len(values) - 1) // 2]\n   ```\n",
];

#[test]
fn code_is_found() {
    for answer in RIGHT {
        let code = extract_code(answer, "middle").expect("code");
        assert!(!code.contains("```") && !code.contains("sorts the values"), "{code}");
        let program = program(&task(), answer).expect("a program");
        assert!(program.contains("check(middle)") && program.contains("def half"), "{program}");
    }
    for answer in ["", "I do not know.", "<think>def middle(v): return 1</think>", "```python\n```"]
    {
        assert_eq!(extract_code(answer, "middle"), None, "{answer:?}");
    }
    // Names that only begin alike are other functions.
    assert_eq!(extract_code("def middle_of(v):\n    return 1\n", "middle"), None);
}

#[test]
fn right_and_wrong_solutions() {
    let found = Command::new("python3").arg("--version").output();
    if !found.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let sandbox = match Sandbox::new(Path::new("python3"), Limits::default(), Isolation::Namespaces)
    {
        Ok(sandbox) => sandbox,
        Err(e) => {
            // `containment.rs` fails where namespaces are permitted and the sandbox is not.
            eprintln!("skipped: {e}");
            return;
        }
    };
    for answer in RIGHT {
        assert_eq!(sandbox.grade(&task(), answer).outcome, Outcome::Passed, "{answer}");
    }
    let failed = |answer: &str, part: &str| match sandbox.grade(&task(), answer).outcome {
        Outcome::Failed { stderr } => assert!(stderr.contains(part), "{stderr}"),
        other => panic!("{answer}: {other:?}"),
    };
    failed(
        "```python\ndef middle(values):\n    return values[0]\n```",
        "candidate([3, 1, 2]) == 2",
    );
    failed("```python\ndef middle(values)\n    return values[0]\n```", "SyntaxError");
    failed("```python\ndef other(values):\n    return values[0]\n```", "AssertionError");
    failed("```python\ndef middle(values):\n    import sys\n    sys.exit(0)\n```", "ended itself");
    failed(
        "```python\ndef middle(values):\n    return max(values) if len(values) == 1 else 2 * len(values) // 4 + 1\n```",
        "AssertionError",
    );
    assert_eq!(sandbox.grade(&task(), "No idea.").outcome, Outcome::NoCode);
}

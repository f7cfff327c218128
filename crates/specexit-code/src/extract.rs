//! Finding the code in an answer.

/// The end-of-thinking marker as nearly all models write it.
const END_OF_THINKING: &str = "</think>";

/// A fenced block.
struct Block {
    language: String,
    code: String,
}

impl Block {
    fn may_be_python(&self) -> bool {
        matches!(self.language.as_str(), "" | "python" | "python3" | "py")
    }
}

/// The code of an answer: the last fenced block that defines the function; else the last block of
/// Python; else the text itself, where it is code without a fence. Only what follows the last
/// `</think>` counts.
#[must_use]
pub fn extract_code(answer: &str, entry_point: &str) -> Option<String> {
    let answer = answer.rsplit_once(END_OF_THINKING).map_or(answer, |(_, after)| after);
    let blocks = blocks(answer);
    let fenced = blocks
        .iter()
        .rfind(|block| block.may_be_python() && defines(&block.code, entry_point))
        .or_else(|| blocks.iter().rfind(|block| block.may_be_python()));
    let code = match fenced {
        Some(block) => block.code.clone(),
        None => bare(answer, entry_point)?,
    };
    (!code.trim().is_empty()).then_some(code)
}

/// True when the code has the function at its top level.
pub(crate) fn defines(code: &str, entry_point: &str) -> bool {
    code.lines().any(|line| is_definition(line, entry_point))
}

/// True for `def name(`, with or without `async`.
pub(crate) fn is_definition(line: &str, name: &str) -> bool {
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("def ")
        .and_then(|rest| rest.trim_start().strip_prefix(name))
        .is_some_and(|rest| rest.trim_start().starts_with('('))
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize, Block)> = None;
    for line in text.lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        match &mut open {
            Some((fence, _, _)) if bare.starts_with(*fence) && is_fence(bare.trim_end()) => {
                blocks.extend(open.take().map(|(_, _, block)| block));
            }
            Some((_, depth, block)) => {
                // A block inside a list is indented as a whole.
                let line =
                    if line.is_char_boundary(*depth) && line[..*depth].bytes().all(|b| b == b' ') {
                        &line[*depth..]
                    } else {
                        line
                    };
                block.code.push_str(line);
                block.code.push('\n');
            }
            None => {
                let Some(fence) = ["```", "~~~"].into_iter().find(|f| bare.starts_with(f)) else {
                    continue;
                };
                let language = bare.trim_start_matches(['`', '~']).trim();
                let language = language.split_whitespace().next().unwrap_or("");
                let language = language.to_ascii_lowercase();
                open = Some((fence, indent, Block { language, code: String::new() }));
            }
        }
    }
    // An answer that was cut off has no closing fence.
    blocks.extend(open.map(|(_, _, block)| block));
    blocks
}

fn is_fence(line: &str) -> bool {
    line.len() >= 3 && line.chars().all(|c| c == '`' || c == '~')
}

/// Code without a fence: the lines from the first that begins a definition or an import to the last
/// that belongs to one; or an indented text, which goes on where the prompt ends.
fn bare(text: &str, entry_point: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.trim().is_empty())?;
    if first.starts_with([' ', '\t']) {
        let body = text.lines().skip_while(|line| line.trim().is_empty());
        let body: Vec<&str> = body
            .take_while(|line| line.trim().is_empty() || line.starts_with([' ', '\t']))
            .collect();
        return Some(body.join("\n") + "\n");
    }
    if !defines(text, entry_point) {
        return None;
    }
    let starts = |line: &str| {
        ["def ", "async def ", "class ", "import ", "from ", "@"]
            .iter()
            .any(|s| line.starts_with(s))
    };
    let belongs = |line: &str| {
        line.trim().is_empty() || line.starts_with([' ', '\t', '#', ')', ']', '}']) || starts(line)
    };
    let is_constant = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !starts(line))
        .take_while(|line| belongs(line) || is_constant(line))
        .collect();
    Some(lines.join("\n") + "\n")
}

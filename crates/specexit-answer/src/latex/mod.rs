//! One spelling for all the ways of writing a value, in LaTeX or in prose.

mod plain;

use crate::{
    brackets, expression, trim,
    typography::{fold, strip_marks},
};

/// Longer values are compared as they are: no answer is that long.
pub(crate) const LONGEST: usize = 2000;
/// Arguments nested deeper than this are copied as they are.
const DEEPEST: usize = 24;

/// Wrappers whose contents are text rather than math.
const TEXT: [&str; 11] = [
    "text",
    "textbf",
    "textit",
    "textrm",
    "texttt",
    "mathrm",
    "mathbf",
    "mathsf",
    "mbox",
    "emph",
    "operatorname",
];

/// The normal spelling: no layout commands, spaces, currencies, percent signs, degrees or units;
/// fractions, roots and exponents with braces; numbers without separators or idle zeros; no `x =`
/// in front; plain words in lower case.
pub(crate) fn normalise(text: &str) -> String {
    let value = respell(text);
    if value.len() > LONGEST {
        return value;
    }
    let value = trim::trim(strip_marks(&value));
    if expression::is_words(&value) { value.to_ascii_lowercase() } else { value }
}

/// The normal spelling with all that stands around the value: names, relations, labels.
pub(crate) fn respell(text: &str) -> String {
    let folded = fold(text);
    let value = strip_marks(&folded);
    if value.len() > LONGEST {
        return value.split_whitespace().collect();
    }
    let value = plain::join_thousands(&plain::join_alternatives(value));
    let mut writer = Writer::default();
    writer.read(&plain::join_scales(&value), 0);
    writer.out
}

/// Takes `\text{…}`, `\boxed{…}` and the like off a value they enclose wholly.
pub(crate) fn unwrap_text(text: &str) -> String {
    let mut text = text.trim();
    while let Some(inner) = text.strip_suffix('}').and_then(|rest| {
        let rest = rest.strip_prefix('\\')?;
        let (name, inner) = rest.split_once('{')?;
        (TEXT.contains(&name) || name == "boxed").then_some(inner)
    }) {
        text = inner.trim();
    }
    text.to_owned()
}

/// The end of the group that opens at `open` (a brace), just behind its closing brace.
fn group_end(text: &str, open: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = open;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Writes the normal spelling.
#[derive(Default)]
struct Writer {
    out: String,
    /// A space was read and not written yet.
    space: bool,
    /// The last thing written was a command such as `\pi`, which a letter must not touch.
    command: bool,
}

impl Writer {
    fn read(&mut self, text: &str, depth: usize) {
        if depth > DEEPEST {
            self.out.push_str(text);
            return;
        }
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            at = match bytes[at] {
                b'\\' => self.command(text, at, depth),
                b'^' | b'_' => self.script(text, at, depth),
                b'{' => self.group(text, at, depth),
                b'}' | b'$' | b'%' | b'~' => at + 1,
                // `3, \text{ and } 4` has become two of them.
                b',' | b';' => {
                    if !self.out.ends_with(',') {
                        self.push(",");
                    }
                    at + 1
                }
                b if b.is_ascii_alphabetic() => self.word(text, at, depth),
                b'0'..=b'9' => self.literal(text, at),
                b'.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => self.literal(text, at),
                b if b.is_ascii_whitespace() => {
                    self.space = true;
                    at + 1
                }
                _ => {
                    let length = text[at..].chars().next().map_or(1, char::len_utf8);
                    self.push(&text[at..at + length]);
                    at + length
                }
            };
        }
    }

    /// Writes a piece; a space before it survives only between words and numbers.
    fn push(&mut self, piece: &str) {
        let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let letter = piece.chars().next().is_some_and(char::is_alphabetic);
        let apart = self.space && word(self.out.chars().last()) && word(piece.chars().next());
        if apart || (self.command && letter) {
            self.out.push(' ');
        }
        self.out.push_str(piece);
        self.space = false;
        self.command = false;
    }

    fn push_command(&mut self, name: &str) {
        self.push("\\");
        self.out.push_str(name);
        self.command = true;
    }

    /// A run of letters: math written without backslashes, or just letters.
    fn word(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let length = text[at..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let end = at + length;
        let word = &text[at..end];
        let joined = self.space || !self.out.ends_with(|c: char| c.is_alphabetic());
        match plain::command_of(word).filter(|_| joined) {
            Some("sqrt") => match text[end..].trim_start().strip_prefix('(') {
                Some(_) => self.root(text, end, depth),
                None => {
                    self.push(word);
                    end
                }
            },
            Some(name) => {
                self.push_command(name);
                end
            }
            None => {
                self.push(word);
                end
            }
        }
    }

    /// A number, without idle zeros; `1.2e5` as a power of ten.
    fn literal(&mut self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let digits = |at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut at = start + digits(start);
        let whole = text[start..at].trim_start_matches('0');
        let mut number = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
        if bytes.get(at) == Some(&b'.') {
            let count = digits(at + 1);
            let mut decimals = &text[at + 1..at + 1 + count];
            // Before a repeating part the zeros count.
            if !["\\overline", "\\bar", "\\dot"]
                .iter()
                .any(|c| text[at + 1 + count..].starts_with(c))
            {
                decimals = decimals.trim_end_matches('0');
            }
            let ends = bytes.get(at + 1).is_none_or(|b| b.is_ascii_digit() || *b == b' ');
            if count > 0 || ends {
                at += 1 + count;
            }
            if !decimals.is_empty() {
                number.push('.');
                number.push_str(decimals);
            }
        }
        self.push(&number);
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let from = at + 1 + sign;
            let count = digits(from.min(bytes.len()));
            if count > 0 && !bytes.get(from + count).is_some_and(u8::is_ascii_alphabetic) {
                let exponent = text[at + 1..from + count].trim_start_matches('+');
                self.push("*10^{");
                self.out.push_str(exponent);
                self.out.push('}');
                at = from + count;
            }
        }
        // `6.72 x 10^5`
        let rest = text[at..].trim_start();
        if let Some(power) = rest.strip_prefix('x').map(str::trim_start)
            && power.starts_with("10^")
        {
            self.push("*");
            at = text.len() - power.len();
        }
        at
    }

    /// Reads one argument at `at`: a group, a command or a single character. Writes it and
    /// returns its end.
    fn argument(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let at = at + text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        let (inner, end) = if rest.starts_with('{') {
            match group_end(text, at) {
                Some(end) => (&text[at + 1..end - 1], end),
                None => (&text[at + 1..], text.len()),
            }
        } else if let Some(name) = rest.strip_prefix('\\') {
            let letters = name.bytes().take_while(u8::is_ascii_alphabetic).count();
            let end = at + 1 + letters.max(name.chars().next().map_or(0, char::len_utf8));
            (&text[at..end], end)
        } else {
            let end = at + rest.chars().next().map_or(0, char::len_utf8);
            (&text[at..end], end)
        };
        self.braced(inner, depth);
        end
    }

    /// An argument in braces.
    fn braced(&mut self, inner: &str, depth: usize) {
        let mut writer = Self::default();
        writer.read(inner, depth + 1);
        self.out.push('{');
        self.out.push_str(writer.out.trim());
        self.out.push('}');
    }

    /// `^` or `_` with its argument; degrees are dropped.
    fn script(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let rest = text[at + 1..].trim_start();
        for degree in ["{\\circ}", "\\circ", "{\\degree}", "{ \\circ }"] {
            if text.as_bytes()[at] == b'^' && rest.starts_with(degree) {
                // The argument of a sine is the one place where degrees change a value.
                if ["\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc", "\\cis"]
                    .iter()
                    .any(|name| self.out.contains(name))
                {
                    self.push("°");
                }
                return text.len() - rest.len() + degree.len();
            }
        }
        if rest.is_empty() {
            return text.len();
        }
        self.push(&text[at..=at]);
        if text.as_bytes()[at] == b'^'
            && let Some(length) = plain::exponent(rest)
        {
            let start = text.len() - rest.len();
            self.braced(&text[start..start + length], depth);
            return start + length;
        }
        self.argument(text, at + 1, depth)
    }

    /// A bare group: parentheses where it holds operators, nothing else. `{a \over b}` is a fraction.
    fn group(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let end = group_end(text, at);
        let inner = &text[at + 1..end.map_or(text.len(), |end| end - 1)];
        if let [numerator, denominator] = brackets::split(inner, "\\over ")[..] {
            self.push("\\frac");
            self.braced(numerator, depth);
            self.braced(denominator, depth);
            return end.unwrap_or(text.len());
        }
        let operators = inner.contains(['+', '-', '/', '*']);
        if operators {
            self.push("(");
        }
        self.read(inner, depth + 1);
        if operators {
            self.push(")");
        }
        end.unwrap_or(text.len())
    }

    fn command(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let rest = &text[at + 1..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if letters == 0 {
            return self.symbol(text, at);
        }
        let name = &rest[..letters];
        let after = at + 1 + letters;
        match name {
            "left" | "right" => {
                // `\left.` is an invisible bracket.
                return if text[after..].starts_with('.') { after + 1 } else { after };
            }
            "big" | "Big" | "bigl" | "bigr" | "Bigl" | "Bigr" | "bigg" | "Bigg"
            | "displaystyle" | "textstyle" | "limits" | "degree" | "rm" | "bf" => {}
            "quad" | "qquad" => self.space = true,
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                self.push("\\frac");
                let middle = self.argument(text, after, depth);
                return self.argument(text, middle, depth);
            }
            "binom" | "dbinom" | "tbinom" => {
                self.push("\\binom");
                let middle = self.argument(text, after, depth);
                return self.argument(text, middle, depth);
            }
            "overline" | "bar" | "dot" => {
                self.push("\\overline");
                return self.argument(text, after, depth);
            }
            "sqrt" => return self.root(text, after, depth),
            "emptyset" | "varnothing" => self.push("\\{\\}"),
            "vert" | "lvert" | "rvert" => self.push("|"),
            "langle" => self.push("("),
            "rangle" => self.push(")"),
            "mathbb" => {
                let from = after + text[after..].len() - text[after..].trim_start().len();
                let end = text[from..].starts_with('{').then(|| group_end(text, from)).flatten();
                let end = end.unwrap_or(text.len().min(from + 1));
                let name = text.get(from..end).unwrap_or("").trim_matches(['{', '}', ' ']);
                self.push_command(name);
                return end;
            }
            "backslash" => self.push_command("setminus"),
            "boxed" | "fbox" => {
                let from = after + text[after..].len() - text[after..].trim_start().len();
                return if text[from..].starts_with('{') {
                    let end = group_end(text, from);
                    self.read(&text[from + 1..end.map_or(text.len(), |end| end - 1)], depth + 1);
                    end.unwrap_or(text.len())
                } else {
                    after
                };
            }
            "cdot" | "times" | "ast" => self.push("*"),
            "div" => self.push("/"),
            "lbrace" => self.push("\\{"),
            "rbrace" => self.push("\\}"),
            "leq" | "leqslant" => self.push_command("le"),
            "geq" | "geqslant" => self.push_command("ge"),
            "neq" => self.push_command("ne"),
            "lt" => self.push("<"),
            "gt" => self.push(">"),
            "begin" | "end" => return self.environment(text, name, after),
            _ if TEXT.contains(&name) => return self.words(text, after, depth),
            _ => self.push_command(name),
        }
        after
    }

    /// `\` and one character that is no letter.
    fn symbol(&mut self, text: &str, at: usize) -> usize {
        let Some(c) = text[at + 1..].chars().next() else { return at + 1 };
        match c {
            '!' | ',' | '$' | '%' | '(' | ')' | '[' | ']' => {}
            ' ' | ';' | ':' => self.space = true,
            '\\' => self.push("\\\\"),
            '{' => self.push("\\{"),
            '}' => self.push("\\}"),
            c => self.push(c.encode_utf8(&mut [0; 4])),
        }
        at + 1 + c.len_utf8()
    }

    fn root(&mut self, text: &str, at: usize, depth: usize) -> usize {
        self.push("\\sqrt");
        let from = at + text[at..].len() - text[at..].trim_start().len();
        if let Some(length) = plain::parenthesised(&text[from..]) {
            self.braced(&text[from + 1..from + length - 1], depth);
            return from + length;
        }
        if text[from..].starts_with('[')
            && let Some(length) = text[from..].find(']')
        {
            self.out.push_str(&text[from..=from + length]);
            return self.argument(text, from + length + 1, depth);
        }
        // `√10` of a plain text means the whole number, `\sqrt10` of LaTeX only its first digit.
        if text[at..].starts_with(' ') {
            let digits = text[from..].bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                self.out.push('{');
                self.out.push_str(&text[from..from + digits]);
                self.out.push('}');
                return from + digits;
            }
        }
        self.argument(text, at, depth)
    }

    /// All matrix environments become one.
    fn environment(&mut self, text: &str, name: &str, at: usize) -> usize {
        let Some(end) = text[at..].starts_with('{').then(|| group_end(text, at)).flatten() else {
            return at;
        };
        let environment = &text[at + 1..end - 1];
        self.push("\\");
        self.out.push_str(name);
        let determinant = environment.eq_ignore_ascii_case("vmatrix");
        let matrix = environment.ends_with("matrix") && !determinant || environment == "array";
        self.out.push_str(if matrix { "{matrix}" } else { "{other}" });
        // `\begin{array}{cc}` has a column specification.
        if environment == "array" && name == "begin" && text[end..].starts_with('{') {
            return group_end(text, end).unwrap_or(end);
        }
        end
    }

    /// `\text{…}`: a unit behind a value is dropped with its exponent, `and` and `or` make a list,
    /// everything else stays.
    fn words(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let from = at + text[at..].len() - text[at..].trim_start().len();
        let Some(end) = text[from..].starts_with('{').then(|| group_end(text, from)).flatten()
        else {
            return at;
        };
        let inner = text[from + 1..end - 1].trim();
        let value_before = self.command
            || self.out.ends_with(|c: char| c.is_ascii_digit() || c == '}' || c == ')');
        let unit = inner.chars().all(|c| c.is_alphabetic() || " ./-'^23".contains(c))
            && !inner.starts_with(|c: char| c.is_ascii_digit());
        if matches!(inner, "and" | "or") {
            self.read(",", depth + 1);
        } else if let Some(power) = plain::power_of(inner).filter(|_| value_before) {
            self.push(&power);
        } else if value_before && unit && plain::command_of(inner).is_none() {
            let rest = text[end..].trim_start();
            for exponent in ["^2", "^3", "^{2}", "^{3}"] {
                if rest.starts_with(exponent) {
                    return text.len() - rest.len() + exponent.len();
                }
            }
        } else {
            self.space = self.space || text[from + 1..].starts_with(' ');
            self.read(inner, depth + 1);
            self.space = text[..end - 1].ends_with(' ');
        }
        end
    }
}

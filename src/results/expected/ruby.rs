//! What the files of controls of an InSpec profile name, found without running them: `control 'id'`, `include_controls 'profile'`,
//! `require_controls 'profile'` and `skip_control 'id'`, outside comments, texts, here-documents and regular expressions.
//!
//! This is no parser of Ruby: it tells words from texts, as Ruby's own lexer does. Where a text does not end, the rest of the
//! file would be taken for its opposite, so that it is [`Scan::lost_at`] and nothing of it counts.

/// What a file names.
#[derive(Debug, Default, PartialEq)]
pub struct Scan {
    /// Names of controls.
    pub controls: Vec<Named>,
    /// Profiles all of whose controls are included.
    pub includes: Vec<Named>,
    /// Profiles some of whose controls are included, each named by a `control`.
    pub requires: Vec<Named>,
    /// Controls that are left out of what is included.
    pub skips: Vec<Named>,
    /// The line of a text that does not end.
    pub lost_at: Option<usize>,
}

/// A name in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: Name,
    /// The line, from 1.
    pub line: usize,
}

/// A name as far as it is written down: parts that are, with anything between them (`"a-#{n}"`, a variable).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Vec<String>);

impl Name {
    /// The name, if it is written down as a whole.
    pub fn exact(&self) -> Option<&str> {
        match &self.0[..] {
            [whole] => Some(whole),
            _ => None,
        }
    }

    /// Whether a text may be it.
    pub fn fits(&self, text: &str) -> bool {
        let [first, rest @ ..] = &self.0[..] else { return false };
        let [parts @ .., last] = rest else { return first == text };
        let Some(mut text) = text.strip_prefix(first.as_str()) else { return false };
        for part in parts {
            // The first place is as good as any later one.
            let Some(at) = text.find(part.as_str()) else { return false };
            text = &text[at + part.len()..];
        }
        text.ends_with(last.as_str())
    }

    fn anything() -> Self {
        Self(vec![String::new(), String::new()])
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// An identifier that is neither a method of something (`a.b`) nor a label (`a:`).
    Word(String),
    /// Any other one.
    Part,
    /// A text in quotes, in parts between which something is put in.
    Text(Vec<String>),
    /// A number, a regular expression, a closing bracket: what ends an expression.
    Value,
    Sign(u8),
    Line,
}

/// Words after which an expression begins.
const BEFORE_VALUE: [&str; 22] = [
    "if", "elsif", "else", "unless", "while", "until", "when", "and", "or", "not", "return", "do", "then", "in",
    "begin", "rescue", "ensure", "case", "yield", "puts", "raise", "break",
];

/// What the text of a file of controls names.
pub fn scan(text: &str) -> Scan {
    let mut lexer =
        Lexer { bytes: text.as_bytes(), at: 0, line: 1, tokens: Vec::new(), documents: Vec::new(), depth: 0 };
    let lost_at = lexer.run(None).err();
    let mut scan = Scan { lost_at, ..Scan::default() };
    let tokens = &lexer.tokens;
    for (at, (token, line)) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let list = match word.as_str() {
            "control" | "rule" => &mut scan.controls,
            "include_controls" | "include_rules" => &mut scan.includes,
            "require_controls" | "require_rules" => &mut scan.requires,
            "skip_control" | "skip_rule" => &mut scan.skips,
            _ => continue,
        };
        if matches!(at.checked_sub(1).map(|before| &tokens[before].0), Some(Token::Word(before)) if before == "def") {
            continue;
        }
        let name = name(&tokens[at + 1..]);
        list.extend(name.map(|name| Named { name, line: *line }));
    }
    scan
}

/// The first argument of a method, where there is one.
fn name(after: &[(Token, usize)]) -> Option<Name> {
    let mut after = after.iter().map(|(token, _)| token);
    let mut first = after.next()?;
    if *first == Token::Sign(b'(') {
        first = after.find(|token| **token != Token::Line)?;
    }
    match first {
        Token::Text(parts) => Some(match after.next() {
            // A text that something is done to, or put together with others.
            Some(Token::Sign(b'+')) => {
                let mut parts = parts.clone();
                parts.push(String::new());
                Name(parts)
            }
            Some(Token::Sign(b'.' | b'%' | b'\\' | b'*' | b'[' | b'?') | Token::Text(_)) => Name::anything(),
            _ => Name(parts.clone()),
        }),
        Token::Word(word) if !matches!(word.as_str(), "do" | "if" | "unless" | "and" | "or" | "then" | "end") => {
            Some(Name::anything())
        }
        Token::Part => Some(Name::anything()),
        Token::Sign(b'@' | b'$') => Some(Name::anything()),
        _ => None,
    }
}

struct Document {
    end: String,
    indented: bool,
    line: usize,
}

struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
    line: usize,
    tokens: Vec<(Token, usize)>,
    /// Here-documents whose text begins on the next line.
    documents: Vec<Document>,
    depth: usize,
}

/// How deep texts in texts are followed.
const DEPTH: usize = 32;

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Whether an expression has ended before this place, so that a sign here is an operator. After a word it may be a
    /// method's argument too: if there is a space before the sign, and none after it.
    fn is_operator(&self) -> bool {
        match self.tokens.last().map(|(token, _)| token) {
            None | Some(Token::Line | Token::Sign(_)) => false,
            Some(Token::Value | Token::Text(_)) => true,
            Some(Token::Word(word)) if BEFORE_VALUE.contains(&word.as_str()) => false,
            Some(Token::Word(_) | Token::Part) => {
                let spaced = self.at > 0 && self.bytes[self.at - 1].is_ascii_whitespace();
                let tight = !self.peek(1).is_ascii_whitespace() && self.peek(1) != b'=';
                !(spaced && tight)
            }
        }
    }

    /// Reads to the end, or to `until` where it closes what was opened outside. The line of a text without an end is an
    /// error.
    fn run(&mut self, until: Option<u8>) -> Result<(), usize> {
        let began = self.line;
        let mut open = 0;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' => self.newline()?,
                b'#' => self.skip_line(),
                b'\'' => self.text(b'\'', None, false)?,
                b'"' | b'`' => self.text(byte, None, true)?,
                b'/' if !self.is_operator() => self.pattern(b'/', None)?,
                b'%' if !self.is_operator() && self.percent()? => {}
                b'<' if self.peek(1) == b'<' && self.here_document() => {}
                b'?' if !self.is_operator() && self.peek(1) > b' ' && !is_word(self.peek(2)) => {
                    // A character, as `?'`.
                    self.at += if self.peek(1) == b'\\' { 3 } else { 2 };
                    self.push(Token::Value);
                }
                b'$' if !is_word(self.peek(1)) => {
                    self.at += 2;
                    self.push(Token::Value);
                }
                b'=' if self.starts_line() && self.rest().starts_with(b"=begin") => self.block_comment()?,
                b'_' if self.starts_line() && self.is_end_mark() => {
                    self.at = self.bytes.len();
                    break;
                }
                b'{' => {
                    open += 1;
                    self.sign(byte);
                }
                b'}' if open == 0 && until == Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                b'}' | b')' | b']' => {
                    open -= usize::from(byte == b'}' && open > 0);
                    self.at += 1;
                    self.push(Token::Value);
                }
                byte if byte.is_ascii_whitespace() => self.at += 1,
                byte if byte.is_ascii_digit() => {
                    while is_word(self.peek(0)) || (self.peek(0) == b'.' && self.peek(1).is_ascii_digit()) {
                        self.at += 1;
                    }
                    self.push(Token::Value);
                }
                byte if is_word(byte) => self.word(),
                byte => self.sign(byte),
            }
        }
        if until.is_some() || !self.documents.is_empty() { Err(began) } else { Ok(()) }
    }

    fn sign(&mut self, byte: u8) {
        self.at += 1;
        self.push(Token::Sign(byte));
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn starts_line(&self) -> bool {
        self.at == 0 || self.bytes[self.at - 1] == b'\n'
    }

    fn is_end_mark(&self) -> bool {
        let line = self.rest().split(|byte| *byte == b'\n').next().unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line) == b"__END__"
    }

    fn skip_line(&mut self) {
        while !matches!(self.peek(0), b'\n') && self.at < self.bytes.len() {
            self.at += 1;
        }
    }

    fn newline(&mut self) -> Result<(), usize> {
        self.push(Token::Line);
        self.at += 1;
        self.line += 1;
        for document in std::mem::take(&mut self.documents) {
            loop {
                if self.at >= self.bytes.len() {
                    return Err(document.line);
                }
                let line = self.rest().split(|byte| *byte == b'\n').next().unwrap_or_default();
                let text = line.strip_suffix(b"\r").unwrap_or(line);
                let text = if document.indented { text.trim_ascii_start() } else { text };
                let ends = text == document.end.as_bytes();
                self.at = (self.at + line.len() + 1).min(self.bytes.len());
                self.line += 1;
                if ends {
                    break;
                }
            }
        }
        Ok(())
    }

    fn block_comment(&mut self) -> Result<(), usize> {
        let began = self.line;
        loop {
            self.skip_line();
            if self.at >= self.bytes.len() {
                return Err(began);
            }
            self.at += 1;
            self.line += 1;
            if self.rest().starts_with(b"=end") {
                self.skip_line();
                return Ok(());
            }
        }
    }

    fn word(&mut self) {
        let start = self.at;
        while is_word(self.peek(0)) {
            self.at += 1;
        }
        // Methods may end so: `empty?`, `include!`.
        if matches!(self.peek(0), b'?' | b'!')
            && self.peek(1) != b'='
            && !(self.peek(0) == b'?' && self.peek(1) == b':')
        {
            self.at += 1;
        }
        let before = start.checked_sub(1).map_or(0, |at| self.bytes[at]);
        let label = self.peek(0) == b':' && self.peek(1) != b':';
        if matches!(before, b'.' | b':' | b'@' | b'$') || label {
            self.at += usize::from(label);
            return self.push(if label { Token::Sign(b':') } else { Token::Part });
        }
        let word = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
        self.push(Token::Word(word));
    }

    /// A text that begins here and ends with `close`; inside brackets of one kind those that are opened are closed first.
    fn text(&mut self, close: u8, open: Option<u8>, puts_in: bool) -> Result<(), usize> {
        let parts = self.quoted(close, open, puts_in)?;
        // As `"a": 1`.
        if self.peek(0) == b':' && self.peek(1) != b':' && open.is_none() {
            self.at += 1;
            self.push(Token::Sign(b':'));
        } else {
            self.push(Token::Text(parts));
        }
        Ok(())
    }

    fn pattern(&mut self, close: u8, open: Option<u8>) -> Result<(), usize> {
        self.quoted(close, open, true)?;
        while self.peek(0).is_ascii_alphabetic() {
            self.at += 1;
        }
        self.push(Token::Value);
        Ok(())
    }

    fn quoted(&mut self, close: u8, open: Option<u8>, puts_in: bool) -> Result<Vec<String>, usize> {
        let began = self.line;
        self.at += 1;
        let mut parts = vec![Vec::new()];
        let mut inner = 0;
        loop {
            let Some(&byte) = self.bytes.get(self.at) else { return Err(began) };
            let part = parts.last_mut().ok_or(began)?;
            match byte {
                b'\\' => {
                    let next = self.peek(1);
                    self.line += usize::from(next == b'\n');
                    self.at += 2;
                    // Without anything put in, only these two are escaped.
                    if !puts_in && next != close && next != b'\\' {
                        part.push(b'\\');
                    }
                    part.push(next);
                    if puts_in && next.is_ascii_alphanumeric() {
                        // Another character than the one that is written here.
                        part.pop();
                        parts.push(Vec::new());
                    }
                    continue;
                }
                b'#' if puts_in && self.peek(1) == b'{' => {
                    self.at += 2;
                    self.depth += 1;
                    if self.depth > DEPTH {
                        return Err(began);
                    }
                    let kept = self.tokens.len();
                    self.push(Token::Sign(b'{'));
                    self.run(Some(b'}')).map_err(|_| began)?;
                    self.tokens.truncate(kept);
                    self.depth -= 1;
                    parts.push(Vec::new());
                    continue;
                }
                byte if byte == close && inner == 0 => {
                    self.at += 1;
                    let text = |part: Vec<u8>| String::from_utf8_lossy(&part).into_owned();
                    return Ok(parts.into_iter().map(text).collect());
                }
                byte if byte == close => inner -= 1,
                byte if Some(byte) == open => inner += 1,
                b'\n' => self.line += 1,
                _ => {}
            }
            part.push(byte);
            self.at += 1;
        }
    }

    /// `%q(...)` and the like. Whether it is one.
    fn percent(&mut self) -> Result<bool, usize> {
        let (kind, mark) = match self.peek(1) {
            kind @ (b'q' | b'Q' | b'w' | b'W' | b'i' | b'I' | b'r' | b's' | b'x') => (kind, self.peek(2)),
            mark => (b'Q', mark),
        };
        let kinded = self.peek(1) != mark;
        let close = match mark {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            // Without a letter only brackets and these few are used.
            b'|' | b'!' | b'/' => mark,
            mark if kinded && mark.is_ascii_punctuation() && mark != b'=' => mark,
            _ => return Ok(false),
        };
        self.at += 1 + usize::from(kinded);
        let open = (close != mark).then_some(mark);
        match kind {
            b'r' => self.pattern(close, open)?,
            b'q' => self.text(close, open, false)?,
            b'Q' => self.text(close, open, true)?,
            kind => {
                self.quoted(close, open, kind.is_ascii_uppercase() || kind == b'x')?;
                self.push(Token::Value);
            }
        }
        Ok(true)
    }

    /// `<<~END` and the like. Whether it is one.
    fn here_document(&mut self) -> bool {
        let indented = matches!(self.peek(2), b'~' | b'-');
        let mut at = self.at + 2 + usize::from(indented);
        let quote = self.bytes.get(at).copied().filter(|byte| matches!(byte, b'\'' | b'"' | b'`'));
        at += usize::from(quote.is_some());
        let start = at;
        let fits = |byte: &u8| match quote {
            Some(quote) => *byte != quote && *byte != b'\n',
            None => is_word(*byte),
        };
        while self.bytes.get(at).is_some_and(fits) {
            at += 1;
        }
        let end = &self.bytes[start..at];
        let named = end.first().is_some_and(|byte| !byte.is_ascii_digit());
        // `list << NAME` shifts, `puts <<NAME` does not; `class << self` is neither.
        let plain =
            !indented && (self.is_operator() || (quote.is_none() && !end.first().is_some_and(u8::is_ascii_uppercase)));
        if !named || plain || (quote.is_some() && self.bytes.get(at) != quote.as_ref()) {
            return false;
        }
        let end = String::from_utf8_lossy(end).into_owned();
        self.documents.push(Document { end, indented, line: self.line });
        self.at = at + usize::from(quote.is_some());
        self.push(Token::Value);
        true
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(list: &[Named]) -> Vec<(&str, usize)> {
        list.iter().map(|named| (named.name.exact().unwrap_or("*"), named.line)).collect()
    }

    #[test]
    fn controls_are_found_where_they_are_code() {
        let text = r##"# control 'comment' do
=begin
control 'block-comment' do
=end
title "it's: control 'in-text' do"
control 'one' do # control 'after'
  impact 0.7
  desc 'fix', "Run:
    control 'long-text' do
    #{x ? "control 'inner'" : 'b'}"
  desc <<~EOS
    control 'here' do
    it's
  EOS
  describe file('/a') do
    its('content') { should match /control 'pattern' it's/ }
    its('content') { should_not match %r{control 'x' \} "} }
    its('a') { should be < 10 / 2 }
    its(:control) { should cmp "control 'y'" }
    tag control: 'label'
    it.control 'method'
  end
end
control("two") do
end
control %q(three) do
control "four-#{n}-x" do
control id do
control 'a' + b do
list.each { |control| control.run }
value = width / control_count / 2
def control(x)
end
x = [?', ?"]
$'
control 'five' if y
__END__
control 'after-the-end' do
"##;
        let found = scan(text);
        assert_eq!(found.lost_at, None);
        assert_eq!(
            exact(&found.controls),
            [("one", 6), ("two", 24), ("three", 26), ("*", 27), ("*", 28), ("*", 29), ("five", 36)]
        );
        assert!(found.controls[3].name.fits("four-7-x") && !found.controls[3].name.fits("four-7-y"));
        assert!(found.controls[5].name.fits("ab") && !found.controls[5].name.fits("ba"));
    }

    #[test]
    fn what_is_included_is_found() {
        let found = scan(
            "include_controls 'all' do\n  skip_control 'x'\n  control('y') { impact 1 }\nend\n\
             require_controls('some') do\n  control \"z\"\nend\n",
        );
        assert_eq!(exact(&found.includes), [("all", 1)]);
        assert_eq!(exact(&found.requires), [("some", 5)]);
        assert_eq!(exact(&found.skips), [("x", 2)]);
        assert_eq!(exact(&found.controls), [("y", 3), ("z", 6)]);
    }

    #[test]
    fn a_text_without_an_end_is_told() {
        for (text, line) in [
            ("x = 1\ncontrol 'a do\n", 2),
            ("=begin\ncontrol 'a' do\n", 1),
            ("\ndesc <<~EOS\n  x\n", 2),
            ("a \"#{b\n", 1),
            ("match %r{a\n", 1),
        ] {
            assert_eq!(scan(text).lost_at, Some(line), "{text}");
        }
    }

    #[test]
    fn other_uses_of_the_signs_are_no_texts() {
        for text in [
            "a = b / c; d = e / f # '\n",
            "x = y % z\n",
            "list << CONST\nlist<<CONST\nlist << 'x'\n",
            "class << self\nend\n",
            "a ? b : 'c'\n",
            "puts(%w(it's a))\n",
            "x = a ?'b' : 'c'\n",
            "h = {'a': 1, \"b\": 2}\n",
            "only_if { !(os.arch =~ /x'/).nil? }\n",
            "s = 100%3\n",
        ] {
            let found = scan(&format!("{text}control 'a' do\nend\n"));
            assert_eq!((found.lost_at, found.controls.len()), (None, 1), "{text}");
        }
    }

    proptest! {
        /// Whatever stands in comments and texts, the controls between them are found, and no others.
        #[test]
        fn nothing_in_a_text_or_comment_is_a_control(
            pieces in proptest::collection::vec((0..7usize, "[a-z]{1,6}", "[a-z '\"#/%{}()\\\\]{0,12}"), 1..20)
        ) {
            let mut text = String::new();
            let mut wanted = Vec::new();
            for (kind, name, noise) in pieces {
                let plain: String = noise.chars().filter(|c| !matches!(c, '\'' | '"' | '\\' | '#' | '{' | '}')).collect();
                match kind {
                    0 => {
                        text.push_str(&format!("control '{name}' do\nend\n"));
                        wanted.push(name);
                    }
                    1 => text.push_str(&format!("# {noise} control '{name}' do\n")),
                    2 => text.push_str(&format!("desc \"control '{name}' do {plain}\"\n")),
                    3 => text.push_str(&format!("desc 'control \"{name}\" {plain}'\n")),
                    4 => text.push_str(&format!("desc <<~EOS\ncontrol '{name}' do {noise}\nEOS\n")),
                    5 => text.push_str(&format!("=begin\ncontrol '{name}' {noise}\n=end\n")),
                    _ => text.push_str(&format!("x = \"#{{a['{name}']}} control '{name}'\"\n")),
                }
            }
            let found = scan(&text);
            prop_assert_eq!(found.lost_at, None);
            let names: Vec<&str> = found.controls.iter().filter_map(|named| named.name.exact()).collect();
            prop_assert_eq!(names, wanted);
        }

        /// Any bytes are read to their end.
        #[test]
        fn no_text_hangs_or_breaks_it(text in "[ -~\n]{0,200}") {
            scan(&text);
        }
    }
}

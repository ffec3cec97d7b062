//! Ruby's words and texts, as its own lexer tells them from each other.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
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

/// All tokens of a text, each with its line, and the line of a text in it that does not end.
pub(super) fn tokens(text: &str) -> (Vec<(Token, usize)>, Option<usize>) {
    let mut lexer =
        Lexer { bytes: text.as_bytes(), at: 0, line: 1, tokens: Vec::new(), documents: Vec::new(), depth: 0 };
    let lost_at = lexer.run(None).err();
    (lexer.tokens, lost_at)
}

/// A here-document whose text is still to come.
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

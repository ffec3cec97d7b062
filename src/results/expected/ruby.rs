//! What the files of controls of an InSpec profile name, found without running them: `control 'id'`, `include_controls 'profile'`,
//! `require_controls 'profile'` and `skip_control 'id'`, outside comments, texts, here-documents and regular expressions.
//!
//! This is no parser of Ruby: it tells words from texts, as Ruby's own lexer does. Where a text does not end, the rest of the
//! file would be taken for its opposite, so that it is [`Scan::lost_at`] and nothing of it counts.

mod lexer;

use lexer::Token;

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

/// What the text of a file of controls names.
pub fn scan(text: &str) -> Scan {
    let (tokens, lost_at) = lexer::tokens(text);
    let mut scan = Scan { lost_at, ..Scan::default() };
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

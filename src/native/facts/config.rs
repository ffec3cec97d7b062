//! Configuration files as lines, without comments.

/// The lines of a configuration file without comments (lines whose first character, after blanks, is `#`) and blank
/// lines, trimmed. Credentials in a URL (`http://user:password@proxy`) are masked: a collector must not carry secrets.
pub(crate) fn lines(raw: &[u8]) -> Vec<String> {
    raw.split(|b| *b == b'\n')
        .map(|line| line.trim_ascii())
        .filter(|line| !line.is_empty() && line[0] != b'#')
        .map(|line| mask(&String::from_utf8_lossy(line)))
        .collect()
}

/// Replaces what is between `://` and the last `@` before the end of the URL's authority.
pub(crate) fn mask(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c == '/' || c == '"' || c == '\'' || c.is_whitespace()).unwrap_or(tail.len());
        rest = match tail[..end].rfind('@') {
            Some(user_end) => {
                out.push_str("***");
                &tail[user_end..]
            }
            None => tail,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_credentials_are_left_out() {
        let raw = b"# a comment\n\n  Port 22  \r\n\t#x\nPasswordAuthentication no # kept\nAcquire::http::Proxy \"http://u:p@x@proxy:3128/\";\n";
        assert_eq!(
            lines(raw),
            ["Port 22", "PasswordAuthentication no # kept", "Acquire::http::Proxy \"http://***@proxy:3128/\";"]
        );
        assert_eq!(lines(b"http://a http://b:c@d"), ["http://a http://***@d"]);
    }
}

//! Names of bundles and of what is in them.

/// Whether this can be the name of a bundle or of an item in one: lower-case letters, digits and single hyphens between
/// them, 1 to 63 characters. Such a name is a whole path component of an OCI repository, a part of a tag, and a DNS label.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// Whether this can be a repository of a bundle: one to three names with `/` between them.
pub fn is_repository(text: &str) -> bool {
    text.split('/').count() <= 3 && text.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for good in ["a", "grype-db", "0", &"a".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a.b", "a_b", "a/b", "..", "a b", "ä", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_repository("images/web") && is_repository("catalog"));
        assert!(!is_repository("images//web") && !is_repository("/images") && !is_repository("a/../b"));
    }
}

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

/// What an item can be.
const SECTIONS: [&str; 4] = ["images", "profiles", "dependencies", "charts"];

/// Whether this can be a repository of a bundle: `catalog`, or the name of a section, `/`, and the name of an item.
pub fn is_repository(text: &str) -> bool {
    match text.split_once('/') {
        Some((section, name)) => SECTIONS.contains(&section) && is_name(name),
        None => text == crate::model::catalog::CATALOG_REPOSITORY,
    }
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
        for bad in
            ["images//web", "/images", "images/../web", "images", "web", "catalog/web", "images/a/b", "other/web", ""]
        {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}

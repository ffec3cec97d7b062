//! The profiles that are part of the program, so that it can judge without any bundle.

use super::{RuleProfile, load};

macro_rules! files {
    ($($folder:literal: [$($file:literal),+ $(,)?],)+) => {
        &[$(($folder, &[$(($file, include_str!(concat!("../../../profiles-mirror/", $folder, "/", $file)))),+])),+]
    };
}

/// The folders below `profiles-mirror` that are part of the program: each with its files by path, and their text.
pub const SHIPPED_FILES: &[(&str, &[(&str, &str)])] = files! {
    "cluster-baseline": [
        "profile.yaml",
        "rules/namespaces.yaml",
        "rules/pods-baseline.yaml",
        "rules/pods-more.yaml",
        "rules/pods-restricted.yaml",
        "rules/rbac.yaml",
    ],
    "container-baseline": [
        "profile.yaml",
        "rules/accounts.yaml",
        "rules/files.yaml",
        "rules/processes.yaml",
        "rules/software.yaml",
    ],
    "host-baseline": [
        "profile.yaml",
        "rules/accounts.yaml",
        "rules/files.yaml",
        "rules/kernel.yaml",
        "rules/sshd.yaml",
    ],
    "image-baseline": [
        "profile.yaml",
        "rules/accounts.yaml",
        "rules/configuration.yaml",
        "rules/files.yaml",
        "rules/software.yaml",
    ],
};

/// The profiles that are part of the program, by name.
pub fn shipped() -> Vec<RuleProfile> {
    let profile = |(name, files): &(&str, &[(&str, &str)])| {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        // A test compiles each of them.
        load(&files).unwrap_or_else(|error| unreachable!("the shipped profile {name} does not compile: {error}"))
    };
    SHIPPED_FILES.iter().map(profile).collect()
}

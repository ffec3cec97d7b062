//! The runner's own key: it signs what the runner did, as the receipt of a load, and nothing that a bundle is trusted by.

use std::io;
use std::path::Path;

use super::error::TrustError;
use super::key::RoleKey;
use super::public::{read_public_key, to_pem};
use crate::base::file::{self, FileError};

/// The runner's key in the folder of the state, readable by its owner alone.
pub const RUNNER_KEY: &str = "runner.pem";
/// Its public half, for whoever verifies what it signed.
pub const RUNNER_PUBLIC_KEY: &str = "runner.pub";

/// The runner's key in `folder`, made when there is none. Killed at any instant, it leaves a whole key or none; of several
/// runners who begin at once, all get the same.
///
/// # Errors
/// When a file can't be read or written, or the two halves are not of one key: a runner does not take a new name unasked.
pub fn runner_key(folder: &Path) -> Result<RoleKey, TrustError> {
    let (private, public) = (folder.join(RUNNER_KEY), folder.join(RUNNER_PUBLIC_KEY));
    file::make_folder(folder)?;
    // The public half is written last, so it is looked for first: where it is, the private one must be.
    let known = if exists(&public)? { Some(read_public_key(&public)?) } else { None };
    if !exists(&private)? {
        if known.is_some() {
            let reason = format!("it is gone, and `{}` is still there", public.display());
            return Err(TrustError::RunnerKey { path: private, reason });
        }
        match RoleKey::generate().write(&private, None) {
            Err(TrustError::File(FileError::Write { source, .. })) if source.kind() == io::ErrorKind::AlreadyExists => {
            }
            other => other?,
        }
    }
    let key = RoleKey::read(&private, &mut || {
        let reason = "it has a passphrase, and a runner works where nobody types one".to_owned();
        Err(TrustError::RunnerKey { path: private.clone(), reason })
    })?;
    match known {
        Some(known) if known == key.point() => {}
        Some(_) => {
            let reason = format!("`{}` is not its public half", public.display());
            return Err(TrustError::RunnerKey { path: private, reason });
        }
        None => {
            let pem = to_pem(key.public()).expect("the key was read as P-256, which has a PEM form");
            file::write_atomic(&public, pem.as_bytes(), 0o644)?;
        }
    }
    Ok(key)
}

fn exists(path: &Path) -> Result<bool, TrustError> {
    Ok(path.try_exists().map_err(|source| FileError::Read { path: path.to_owned(), source })?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn runners_that_begin_at_once_get_one_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let begun: Vec<_> = (0..8).map(|_| scope.spawn(|| runner_key(&state).expect("a key").id_hex())).collect();
            begun.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let public = read_public_key(&state.join(RUNNER_PUBLIC_KEY)).expect("its public half");
        assert_eq!(public, runner_key(&state).expect("the same").point());
        assert_eq!(fs::read_dir(&state).expect("a folder").count(), 2, "nothing else is left there");
    }

    #[test]
    fn a_runner_that_was_killed_before_the_public_half_was_written_goes_on_with_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = runner_key(folder.path()).expect("a key");
        fs::remove_file(folder.path().join(RUNNER_PUBLIC_KEY)).expect("remove");
        assert_eq!(runner_key(folder.path()).expect("the same").id_hex(), key.id_hex());
        assert!(folder.path().join(RUNNER_PUBLIC_KEY).exists());
    }

    #[test]
    fn a_lost_or_exchanged_key_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().expect("a folder");
        runner_key(folder.path()).expect("a key");
        let private = folder.path().join(RUNNER_KEY);
        fs::remove_file(&private).expect("remove");
        assert!(matches!(runner_key(folder.path()), Err(TrustError::RunnerKey { .. })), "lost");
        RoleKey::generate().write(&private, None).expect("write");
        assert!(matches!(runner_key(folder.path()), Err(TrustError::RunnerKey { .. })), "exchanged");
    }
}

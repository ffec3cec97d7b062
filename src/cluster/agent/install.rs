//! Putting the binary where the scanner's container can run it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::error::AgentError;

/// Copies the running binary to `to`, readable and executable for all.
///
/// # Errors
/// When it can't be read or written.
pub fn install(to: &Path) -> Result<(), AgentError> {
    let own = std::env::current_exe().map_err(AgentError::file("find", "/proc/self/exe"))?;
    fs::copy(&own, to).map_err(AgentError::file("write", to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o555)).map_err(AgentError::file("make executable", to))
}

//! Holding a container open until somebody is done with it.
//!
//! An ephemeral container has no volume of its own and may share nothing with its target but processes. So it does nothing
//! by itself: commands are run in it by exec, and the last of them ends it. Its end is a signal to its first process, which
//! is found by a word that nobody else knows.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::error::AgentError;

/// Waits for SIGTERM, at most for so long.
///
/// # Errors
/// When signals can't be listened for.
pub async fn hold(deadline: Duration) -> Result<(), AgentError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    tokio::select! {
        _ = terminated.recv() => {}
        () = tokio::time::sleep(deadline) => {}
    }
    Ok(())
}

/// The processes that hold, or run a scanner, with this word on their command line.
pub fn holders(word: &str) -> Vec<u32> {
    let own = std::process::id();
    let holds = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        [b"hold", b"run".as_slice()].iter().any(|holding| words.contains(holding)) && words.contains(&word.as_bytes())
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| *pid != own && holds(*pid)).collect()
}

/// Ends the process that holds with this word. Where there is none, it has ended already.
pub fn release(word: &str) {
    for pid in holders(word) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may be gone by now, which is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_who_holds_with_this_word_is_ended() {
        let hold = |word: &str| {
            // A shell that is told these words as arguments; it reads from a pipe that nobody writes to.
            Command::new("sh")
                .args(["-c", "read x", "sh", "hold", word])
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("there is a shell")
        };
        let (mut meant, mut other) = (hold("word-a"), hold("word-b"));
        release("word-a");
        assert!(!meant.wait().expect("it ends").success());
        assert!(other.try_wait().expect("it is asked").is_none(), "it goes on");
        other.kill().and_then(|()| other.wait().map(drop)).expect("it ends");
    }
}

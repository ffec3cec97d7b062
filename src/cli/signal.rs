//! Signals: the first one drains, the second one aborts.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::base::exit::{ExitClass, Failure};
use crate::base::progress::Progress;
use crate::stage::scan::{Stop, Stopping};

/// Listens for SIGTERM and SIGINT for as long as the process lives.
pub(crate) fn stop_on_signals(progress: Progress) -> Result<Stop, Failure> {
    let failed = |error| Failure::new(ExitClass::Bug, format!("listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (tell, stop) = watch::channel(Stopping::No);
    // It lives as long as the process, which ends it.
    tokio::spawn(async move {
        for stopping in [Stopping::Drain, Stopping::Abort] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            progress.say(match stopping {
                Stopping::Drain => "told to stop: nothing new is started; once more to stop at once",
                Stopping::Abort | Stopping::No => "told again: what runs is ended",
            });
            // Nobody listens any more when the run is over.
            let _ = tell.send(stopping);
        }
        std::future::pending::<()>().await;
    });
    Ok(stop)
}

//! `gapscan bundle lock`

use jiff::Timestamp;

use super::SourceArgs;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::text::printable;
use crate::cli::table;
use crate::stage::lock::{LockRequest, Locked, Update, lock};

/// Pin every reference to a digest and write bundle.lock
///
/// Where there is a lock already, what moved is listed. What could not be used without the internet later is refused here.
#[derive(Debug, clap::Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Move only these items; all others keep their pins. Without a name everything may move
    #[arg(long, value_name = "NAME", num_args = 0..)]
    update: Option<Vec<String>>,
    /// The time that the bundle counts as created [default: $SOURCE_DATE_EPOCH, then now]
    #[arg(long, value_name = "TIME")]
    created: Option<Timestamp>,
}

impl LockArgs {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        let created = match self.created {
            Some(created) => created,
            None => source_date_epoch()?.unwrap_or(now),
        };
        let request = LockRequest {
            definition: self.source.definition.clone(),
            update: match self.update {
                Some(names) if !names.is_empty() => Update::Only(names),
                Some(_) | None => Update::All,
            },
            created,
            agent: self.source.agent()?,
            limits: Limits::default(),
        };
        let Locked { path, lock, changes } = lock(&request, &self.source.progress()).await?;
        let items = table::count(lock.items.len(), "item");
        println!("{}: {} version {}, {items}", path.display(), lock.name, lock.version);
        for change in changes {
            println!("  {}", printable(&change.to_string()));
        }
        Ok(ExitClass::Success)
    }
}

/// The time of reproducible builds (reproducible-builds.org, "SOURCE_DATE_EPOCH"): seconds since 1970.
fn source_date_epoch() -> Result<Option<Timestamp>, Failure> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(None) };
    text.parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map(Some)
        .ok_or_else(|| Failure::usage("use SOURCE_DATE_EPOCH: it is no number of seconds"))
}

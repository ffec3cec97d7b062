//! A unit of work: one target, reached once by one approach, and judged by one or more profiles.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::account::Unaccounted;
use super::budget::{CpuBudget, Part, Place, Rank};
use super::container::Ways;
use super::content::External;
use super::image::LayerCache;
use super::known::Known;
use super::pull::Pulling;
pub(crate) use super::reached::{NotDone, Reached, facts_evidence, judge_system};
use super::run::Explanation;
use super::session::Session;
use super::{container, external, host, image, node, objects};
use crate::base::limits::Limits;
use crate::cluster::access::auto::Chosen;
use crate::cluster::agent::upload::Uploads;
use crate::cluster::capacity;
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, BundleRef};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, Event, ExpectedTask, RunId};
use crate::model::target::{Target, TargetKind};
use crate::native::profile::RuleProfile;
use crate::registry::Reference;
use crate::stage::plan::Policy;
use crate::stage::registries::Registries;

/// What every unit of a run shares.
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    pub(crate) registries: Registries,
    pub(crate) pulling: Pulling,
    pub(crate) layers: LayerCache,
    pub(crate) known: Known,
    /// The folder in which large results are kept while they arrive: that of the ledger, which they go into.
    pub(crate) spool: PathBuf,
    /// Where results are taken by upload; `None` to fetch them.
    pub(crate) uploads: Option<Uploads>,
    /// The verified bundle, for provenance.
    pub(crate) bundle: Option<BundleRef>,
    /// How much CPU the pods of scans may ask for.
    pub(crate) cpu: CpuBudget,
    /// What was set up in the cluster; why not, where it could not be; `None` where no unit needs it.
    pub(crate) session: Option<Result<Session, NotDone>>,
}

impl Context {
    /// The CPU that a scanner's pod gets, as a Kubernetes quantity. `node` is where it must run.
    pub(crate) fn cpu(&self, asked: &str, node: Option<&str>) -> String {
        match capacity::millis(asked) {
            Some(millis) => format!("{}m", self.cpu.granted(millis, node)),
            None => asked.to_owned(),
        }
    }

    /// What was set up in the cluster.
    pub(crate) fn session(&self) -> Result<&Session, NotDone> {
        match &self.session {
            Some(Ok(session)) => Ok(session),
            Some(Err(why)) => Err(why.clone()),
            None => Err(NotDone::new(Reason::InternalError, "no cluster was connected for this")),
        }
    }
}

/// One target by one engine.
pub(crate) struct Unit {
    pub(crate) target: Target,
    /// Of a container, what controls its pod.
    pub(crate) workload: Option<String>,
    pub(crate) rank: Rank,
    pub(crate) work: Work,
    pub(crate) tasks: Vec<Task>,
}

/// What one attempt at a unit came to.
pub(crate) struct Done {
    /// One result for each of its tasks.
    pub(crate) results: Vec<CheckedTask>,
    /// The way that led to it.
    pub(crate) approach: Approach,
    /// Whether the target was judged at all.
    pub(crate) outcome: Result<(), NotDone>,
    pub(crate) repeat: Repeat,
    /// What happened in the meantime that is not of this unit alone, for the ledger.
    pub(crate) events: Vec<Event>,
}

/// Whether another attempt may do better and can't do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing was begun at the target, and what failed may pass.
    Safe,
    /// It is done, or it can't be known what a second attempt would meet.
    Never,
}

/// One profile that the target is judged by.
pub(crate) struct Task {
    pub(crate) engine: String,
    pub(crate) profile: Profile,
    pub(crate) rules: Option<Arc<RuleProfile>>,
}

/// How the target is reached.
pub(crate) enum Work {
    /// The files and processes of this machine.
    Host,
    /// The layers of an image.
    Image,
    /// A container, in the ways that were chosen.
    Container(Box<Ways>),
    /// A node, by gapscan's own image in a Job on it.
    Node(String),
    /// The API objects.
    Objects,
    /// A scanner's Job.
    External(Arc<External>),
    /// A scanner at a container, in the ways that were chosen.
    ExternalContainer(Arc<External>, Box<Ways>),
    /// It is known already that it can't be reached.
    Impossible(NotDone),
}

impl Unit {
    /// What has to be said of the unit's tasks if it never ends.
    pub(crate) fn unaccounted(&self) -> Vec<Unaccounted> {
        let of = |t: &Task| Unaccounted {
            target: self.target.clone(),
            engine: t.engine.clone(),
            profile: t.profile.clone(),
        };
        self.tasks.iter().map(of).collect()
    }

    /// The expected tasks, for the record of the run's start.
    pub(crate) fn expected(&self) -> impl Iterator<Item = ExpectedTask> {
        self.unaccounted().into_iter().map(|t| ExpectedTask {
            incarnation: self.incarnation(),
            workload: self.workload.clone(),
            ..t.expected()
        })
    }

    /// What tells a container from what runs under its name after it was started anew.
    pub(crate) fn incarnation(&self) -> Option<String> {
        let Work::Container(ways) = &self.work else { return None };
        ways.facts.id.clone()
    }

    /// How the target would be reached, and why so.
    pub(crate) fn explain(&self, policy: &Policy) -> Explanation {
        let plain = |approach: Approach, why: &str| vec![(approach.word().to_owned(), why.to_owned())];
        let pairs = |list: &[Chosen]| list.iter().map(|c| (c.way.to_string(), c.why.clone())).collect();
        let (ways, refused) = match &self.work {
            Work::Host => (plain(Approach::Local, "it is this machine"), Vec::new()),
            Work::Image => {
                (plain(Approach::Image, "one streaming pass over each layer, from its registry"), Vec::new())
            }
            Work::Objects => {
                (plain(Approach::Objects, "through the API server, as an identity for this alone"), Vec::new())
            }
            Work::Node(_) => (plain(Approach::Node, &node::explain("gapscan's collector", policy)), Vec::new()),
            Work::External(external) if self.target.kind() == TargetKind::Node => {
                (plain(Approach::Node, &node::explain(&external.scanner.title, policy)), Vec::new())
            }
            Work::External(external) if self.target.kind() == TargetKind::Cluster => {
                (plain(Approach::Objects, &external::explain(external)), Vec::new())
            }
            Work::External(external) if external.takes_archive_alone() => (
                plain(Approach::ImageArchive, "a Job of the scanner, which is given the image as an archive"),
                Vec::new(),
            ),
            Work::External(_) => {
                (plain(Approach::ImageVolume, "a Job of the scanner, with the image mounted as a volume"), Vec::new())
            }
            Work::Container(ways) | Work::ExternalContainer(_, ways) => {
                (pairs(&ways.choice.ways), pairs(&ways.choice.refused))
            }
            Work::Impossible(why) => {
                (Vec::new(), vec![(Approach::None.word().to_owned(), format!("{}: {}", why.reason, why.detail))])
            }
        };
        Explanation {
            target: self.target.key(),
            engine: self.tasks.first().map(|task| task.engine.clone()).unwrap_or_default(),
            profiles: self.tasks.iter().map(|task| task.profile.name.clone()).collect(),
            ways,
            refused,
        }
    }

    /// Where it belongs in the order of the run. Without a session it tries nothing in the cluster.
    pub(crate) fn place(&self, context: &Context) -> Place {
        let lane = match &self.target {
            Target::Container { namespace, .. } => format!("ns/{namespace}"),
            other => other.kind().word().to_owned(),
        };
        let open = matches!(context.session, Some(Ok(_)));
        let cluster = self.part().filter(|_| open);
        let cpu_millis = if cluster.is_some() { self.cpu_millis(&context.cpu) } else { 0 };
        Place { rank: self.rank, lane, target: self.target.key(), registry: self.registry(), cluster, cpu_millis }
    }

    /// What its pod asks for, in thousandths of a core. An ephemeral container can't ask for any, and an exec runs on its
    /// target's account.
    pub(crate) fn cpu_millis(&self, cpu: &CpuBudget) -> u64 {
        let asked = match &self.work {
            Work::External(external) => &external.scanner.cpu,
            Work::ExternalContainer(external, _) => &external.scanner.cpu,
            Work::Node(_) => node::CPU,
            Work::Host | Work::Image | Work::Container(_) | Work::Objects | Work::Impossible(_) => return 0,
        };
        // A definition whose CPU is no such quantity was refused.
        cpu.granted(capacity::millis(asked).unwrap_or(1000), self.node().as_deref())
    }

    /// The registry without which nothing can come of it.
    fn registry(&self) -> Option<String> {
        let image = match (&self.work, &self.target) {
            (Work::Image, Target::Image { reference, .. }) => reference,
            (Work::External(external), _) => &external.image,
            (Work::Node(image), _) => image,
            (Work::Container(ways), _) if ways.only_image() => ways.facts.image.as_ref()?,
            _ => return None,
        };
        image.parse::<Reference>().ok().map(|image| image.registry.to_string())
    }

    /// What it needs of the cluster beside the API server, where it needs it.
    fn part(&self) -> Option<Part> {
        match &self.work {
            Work::Container(ways) if ways.only_image() => None,
            Work::ExternalContainer(_, ways) if ways.choice.ways.is_empty() => None,
            Work::Container(_) | Work::ExternalContainer(..) => {
                let Target::Container { node, .. } = &self.target else { return Some(Part::default()) };
                Some(Part { node: node.clone(), workload: self.workload.clone() })
            }
            Work::Node(_) => Some(Part { node: self.node(), workload: None }),
            Work::External(_) => Some(Part { node: self.node(), workload: None }),
            Work::Objects => Some(Part::default()),
            Work::Host | Work::Image | Work::Impossible(_) => None,
        }
    }

    /// The node that the target is, if it is one: a Job can run there only.
    fn node(&self) -> Option<String> {
        match &self.target {
            Target::Node { name, .. } => Some(name.clone()),
            _ => None,
        }
    }

    /// Reaches the target and judges it: exactly one result for each task.
    ///
    /// # Cancel safety
    /// Dropped half-way it may leave objects in the cluster; [`super::session::close`] removes all that has the run's label.
    pub(crate) async fn perform(&self, context: &Context, run: RunId) -> Done {
        let started = Timestamp::now();
        let Self { target, work, tasks, .. } = self;
        let approach = work.approach(target);
        let working = async {
            if let Err(why) = self.keep_proven(context).await {
                return Reached::nothing(target.clone(), approach, why);
            }
            match work {
                Work::Host => host::reach(target, tasks, context).await,
                Work::Image => image::reach(target, tasks, context).await,
                Work::Container(ways) => container::reach(target, ways, None, tasks, context).await,
                Work::Node(image) => node::reach(target, image, tasks, context).await,
                Work::Objects => objects::reach(target, tasks, context).await,
                Work::External(external) => external::reach(target, tasks, external, context).await,
                Work::ExternalContainer(external, ways) => {
                    container::reach(target, ways, Some(external), tasks, context).await
                }
                Work::Impossible(why) => Reached::nothing(target.clone(), Approach::None, why.clone()),
            }
        };
        let deadline = work.deadline(context);
        let reached = match tokio::time::timeout(deadline, working).await {
            Ok(reached) => reached,
            Err(_) => {
                let why = NotDone::new(Reason::Timeout, format!("it was not done after {} s", deadline.as_secs()));
                Reached::nothing(target.clone(), approach, why)
            }
        };
        let could_try = match (self.part(), &context.session) {
            (Some(_), session) => matches!(session, Some(Ok(_))),
            (None, _) => !matches!(work, Work::Impossible(_)),
        };
        Done {
            approach: reached.approach,
            outcome: reached.verdict.as_ref().map(|_| ()).map_err(Clone::clone),
            repeat: if could_try && reached.may_be_repeated() { Repeat::Safe } else { Repeat::Never },
            results: reached.into_tasks(run, tasks, started, context),
            events: context.session.iter().flatten().flat_map(Session::take_events).collect(),
        }
    }

    /// Before anything of it is started in the cluster: whether the proof that the network is closed still holds.
    async fn keep_proven(&self, context: &Context) -> Result<(), NotDone> {
        match (self.part(), &self.work, &context.session) {
            // Objects are read through the API server, and nothing is started.
            (None, ..) | (_, Work::Objects, _) => Ok(()),
            (Some(_), _, Some(Ok(session))) => session.keep_proven().await,
            // It says itself why it can't begin.
            (Some(_), _, None | Some(Err(_))) => Ok(()),
        }
    }
}

impl Work {
    fn approach(&self, target: &Target) -> Approach {
        match self {
            Self::Host => Approach::Local,
            Self::Image => Approach::Image,
            Self::Container(ways) | Self::ExternalContainer(_, ways) => {
                ways.choice.ways.first().map_or(Approach::None, |chosen| chosen.way.approach())
            }
            Self::Objects => Approach::Objects,
            Self::Node(_) => Approach::Node,
            Self::External(external) => external::approach(target, external),
            Self::Impossible(_) => Approach::None,
        }
    }

    /// A scanner has the deadline of its definition, and time to start, to hand over its result and to be removed.
    fn deadline(&self, context: &Context) -> std::time::Duration {
        let own = context.policy.deadline.duration();
        match self {
            Self::External(external) => external.scanner.deadline.duration() + own,
            // Each way is a scan of its own.
            Self::ExternalContainer(external, ways) => {
                let tries = u32::try_from(ways.choice.ways.len()).unwrap_or(u32::MAX).max(1);
                external.scanner.deadline.duration().saturating_mul(tries) + own
            }
            Self::Node(_) => node::COLLECT + own,
            Self::Host | Self::Image | Self::Container(_) | Self::Objects | Self::Impossible(_) => own,
        }
    }
}

//! Looks at everything that is asked for, in the order of the way: files on this machine, connections, the cluster, what is
//! left in it, the ledger, the bundle. What can't be looked at without something else is said to be so.

use jiff::{SignedDuration, Timestamp};

use super::check::{Check, Omitted, Report};
use super::expiry::Clock;
use super::handshake::{Authorities, handshake};
use super::ledger::{self, Ledger};
pub use super::registry::Push;
use super::{kubeconfig, leftovers, registry, rights, server, tls, trust, waivers};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::Span;
use crate::cluster::canary::{self, CanaryImage, Proven, Remains};
use crate::cluster::client::{Cluster, Endpoint};
use crate::cluster::inspect::grants::{self, Found};
use crate::cluster::inspect::{entrance, rights as asked, server as seen};
use crate::cluster::namespace::ScanNamespace;
use crate::ledger::LedgerReader;
use crate::model::record::RunId;
use crate::stage::install::resources;
use crate::stage::plan::{Access, Policy};
use crate::stage::registries::Registries;
use crate::stage::scan::content::Content;
use crate::stage::scan::pull::Pulling;
use crate::stage::seen as remembered_with;
use crate::stage::waivers::check::check;
use crate::trust::remembered::{OnLoss, Remembered};

/// Whether the canary runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// In a namespace that is made for it and removed.
    Run,
    /// Nothing is made in the cluster.
    Not,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct DoctorRequest {
    /// How everything is reached.
    pub access: Access,
    /// What scans may do.
    pub policy: Policy,
    /// What expires sooner than this is told.
    pub near: Span,
    /// Whether the canary runs.
    pub canary: Canary,
    /// Whether a push is tried.
    pub push: Push,
}

/// What comes of looking, as it goes on.
struct Doctor {
    request: DoctorRequest,
    limits: Limits,
    clock: Clock,
    checks: Vec<Check>,
    omitted: Vec<Omitted>,
}

/// Looks. Nothing is changed anywhere, but for what [`Canary::Run`] and [`Push::Try`] make and take back. Whatever can't be
/// found out is in the report.
pub async fn doctor(request: DoctorRequest, progress: &Progress) -> Report {
    let now = Timestamp::now();
    let near = SignedDuration::try_from(request.near.duration()).unwrap_or(SignedDuration::MAX);
    let clock = Clock { now, near };
    let mut doctor = Doctor { request, limits: Limits::default(), clock, checks: Vec::new(), omitted: Vec::new() };
    doctor.look(progress).await;
    Report { gapscan: env!("CARGO_PKG_VERSION"), at: now, checks: doctor.checks, not_looked_at: doctor.omitted }
}

impl Doctor {
    async fn look(&mut self, progress: &Progress) {
        let path = self.request.access.ledger.clone();
        let ledger = tokio::task::block_in_place(|| ledger::look(&path));
        let known = ledger.as_ref().ok().and_then(Option::as_ref);
        let registries = Registries::new(self.request.access.registries.clone(), self.limits.clone());

        progress.say("looking at registries and bundle");
        let content = self.registries(&registries, known.map(|ledger| &ledger.reader)).await;

        progress.say("looking at the cluster");
        let cluster = self.cluster().await;
        let (mut uid, mut found) = (None, None);
        if let Some(cluster) = &cluster {
            uid = Box::pin(self.inside(cluster, content.as_ref(), &registries, progress)).await;
            found = Some(self.leftovers(cluster, known).await);
        }
        self.ledger(&ledger, uid.as_deref(), found.as_ref());
        self.waivers(known.map(|ledger| &ledger.reader));
    }

    /// The way to the API server; the connection, where there is one.
    async fn cluster(&mut self) -> Option<Cluster> {
        let named = &self.request.access.cluster;
        let (file, context) = (named.kubeconfig.clone(), named.context.clone());
        let subject = file.as_ref().map_or("the usual places".to_owned(), |path| path.display().to_string());
        match entrance::entrance(file.as_deref(), context.as_deref()) {
            Ok(Some(found)) => self.checks.extend(kubeconfig::judge(&found, self.clock)),
            Ok(None) => {
                let check = Check::unknown("kubeconfig", subject, "there is none, and this is no pod of a cluster");
                self.checks.push(check.with_remedy("name a kubeconfig with --kubeconfig or KUBECONFIG"));
                self.omit_cluster("there is no kubeconfig");
                return None;
            }
            Err(error) => {
                self.checks.push(Check::failed("kubeconfig", subject, &error));
                self.omit_cluster("the kubeconfig can't be used");
                return None;
            }
        }
        match Cluster::endpoint(file.as_deref(), context.as_deref()).await {
            Ok(endpoint) => self.connection(&endpoint).await,
            Err(error) => self.checks.push(Check::failed("kubeconfig", subject, &error)),
        }
        match Cluster::connect(file.as_deref(), context.as_deref(), &self.limits).await {
            Ok(cluster) => Some(cluster),
            Err(error) => {
                self.checks.push(Check::failed("server-reachable", "the API server", &error));
                self.omit_cluster("the API server can't be used");
                None
            }
        }
    }

    async fn connection(&mut self, endpoint: &Endpoint) {
        if !endpoint.secure {
            return;
        }
        let subject = format!("{}:{}", endpoint.host, endpoint.port);
        if endpoint.by_proxy {
            let why = "a proxy is between, and gapscan's own connections would take it";
            return self.omitted.push(Omitted::new(format!("TLS of {subject}"), why));
        }
        let authorities = endpoint.authorities.clone().map_or(Authorities::System, Authorities::These);
        let at = (endpoint.host.as_str(), endpoint.port);
        let seen = handshake(at, &endpoint.name, &authorities, self.limits.connect).await;
        self.checks.extend(tls::judge(&subject, &seen, self.clock));
    }

    fn omit_cluster(&mut self, why: &str) {
        self.omitted.push(Omitted::new("the API server, the rights in it, what runs left there", why));
    }

    /// What the cluster is and lets be done; gives its UID.
    async fn inside(
        &mut self,
        cluster: &Cluster,
        content: Option<&Content>,
        registries: &Registries,
        progress: &Progress,
    ) -> Option<String> {
        let subject = cluster.context().to_owned();
        let uid = match cluster.identity().await {
            Ok(identity) => {
                let detail = format!("it answers as cluster {}", identity.uid);
                self.checks.push(Check::ok("server-reachable", &subject, detail));
                Some(identity.uid)
            }
            Err(error) => {
                self.checks.push(Check::failed("server-reachable", &subject, &error));
                None
            }
        };
        self.checks.push(match seen::clock(cluster).await {
            Ok(date) => server::judge_clock(&subject, date, Timestamp::now()),
            Err(error) => Check::unseen("server-clock", &subject, &error),
        });
        let home = self.canary(cluster, content, registries, progress).await;
        match seen::look(cluster, home.as_ref().map(ScanNamespace::name)).await {
            Ok(facts) => {
                let (checks, omitted) = server::judge(&subject, &facts);
                self.checks.extend(checks);
                self.omitted.extend(omitted);
            }
            Err(error) => self.checks.push(Check::unseen("server-version", &subject, &error)),
        }
        if let Some(home) = home {
            let cleanup = home.remove(cluster).await;
            self.checks.push(match cleanup.remaining.as_slice() {
                [] => Check::ok("canary-cleanup", &subject, "what was made for the canary is seen to be gone"),
                left => {
                    Check::bad("canary-cleanup", &subject, format!("this is not seen to be gone: {}", left.join(", ")))
                        .with_remedy("a scan a day later removes it; or remove it by hand")
                }
            });
        }
        self.rights(cluster, content).await;
        uid
    }

    /// Lets the canary run, where it is asked for, and gives its namespace, which is still there.
    async fn canary(
        &mut self,
        cluster: &Cluster,
        content: Option<&Content>,
        registries: &Registries,
        progress: &Progress,
    ) -> Option<ScanNamespace> {
        const NAME: &str = "network-enforced";
        let subject = cluster.context().to_owned();
        if self.request.canary == Canary::Not {
            let why = "every run proves it before anything else runs; --canary, with a bundle, proves it now";
            self.omitted.push(Omitted::new(NAME, why));
            return None;
        }
        let Some(image) = content.and_then(|content| content.own_image.clone()) else {
            let check =
                Check::unknown(NAME, subject, "the canary is gapscan's own image, and no bundle with it can be used");
            self.checks.push(check.with_remedy("name one with --bundle, --registry and --root"));
            return None;
        };
        let pulling = Pulling::new(self.request.access.cluster.pull_config_file.as_deref(), &self.limits);
        let secret = match pulling {
            Ok(pulling) => match pulling.secret([image.as_str()], registries, &self.limits).await {
                Ok(secret) => secret,
                Err(why) => {
                    self.checks.push(Check::unknown(NAME, subject, why.detail));
                    return None;
                }
            },
            Err(error) => {
                self.checks.push(Check::failed(NAME, subject, &error));
                return None;
            }
        };
        progress.say("proving that network policies are enforced");
        match ScanNamespace::create(cluster, RunId::new()).await {
            Ok(home) => {
                let image = CanaryImage { name: &image, pull: secret.as_ref() };
                let Proven { proof, standing: _, used } = Box::pin(canary::prove(cluster, &home, &[], image, 0)).await;
                let Remains { remaining, tokens } = Box::pin(used.remove(cluster)).await;
                home.leave(remaining);
                for (identity, token) in tokens {
                    home.retire(identity, token);
                }
                self.checks.push(match proof.enforced {
                    true => Check::ok(NAME, subject, proof.detail),
                    false => Check::bad(NAME, subject, proof.detail)
                        .with_remedy("use a network plugin that enforces NetworkPolicies: nothing runs without, unless policy.unenforcedNetwork is record"),
                });
                Some(home)
            }
            Err(error) => {
                self.checks.push(Check::unseen(NAME, subject, &error));
                None
            }
        }
    }

    async fn rights(&mut self, cluster: &Cluster, content: Option<&Content>) {
        let identity = match asked::identity(cluster).await {
            Ok(identity) => {
                let groups = identity.groups.join(", ");
                let detail = format!("the API server takes it for `{}`, in {groups}", identity.username);
                self.checks.push(Check::ok("identity", cluster.context(), detail));
                identity
            }
            Err(error) => {
                self.checks.push(Check::unseen("identity", cluster.context(), &error));
                asked::Identity::default()
            }
        };
        let shipped;
        let content = match content {
            Some(content) => content,
            None => {
                shipped = Content::shipped();
                &shipped
            }
        };
        let needed = rights::needed(&resources(content));
        let wanted: Vec<_> = needed.iter().map(|(right, _)| right.clone()).collect();
        let answers = asked::may(cluster, &wanted).await;
        self.checks.extend(rights::judge(&identity, &needed, &answers));
        let beyond = rights::beyond();
        let answers = asked::may(cluster, &beyond).await;
        self.checks.push(rights::judge_beyond(&identity, &beyond, &answers));
    }

    async fn leftovers(&mut self, cluster: &Cluster, ledger: Option<&Ledger>) -> Found {
        let found = grants::look(cluster).await;
        let runs = ledger.and_then(|ledger| ledger.runs.as_ref());
        let (checks, omitted) = leftovers::judge(cluster.context(), &found, runs, Timestamp::now());
        self.checks.extend(checks);
        self.omitted.extend(omitted);
        found
    }

    fn ledger(
        &mut self,
        ledger: &Result<Option<Ledger>, crate::ledger::LedgerError>,
        cluster: Option<&str>,
        found: Option<&Found>,
    ) {
        let path = self.request.access.ledger.clone();
        match ledger {
            Ok(Some(ledger)) => {
                self.checks.extend(ledger::judge(&path, ledger, cluster, Timestamp::now()));
                if let Some(runs) = &ledger.runs {
                    self.checks.push(leftovers::judge_recorded(&path.display().to_string(), runs, found));
                }
            }
            Ok(None) => self.checks.push(ledger::judge_absent(&path)),
            Err(error) => self.checks.push(ledger::judge_unopened(&path, error)),
        }
        self.checks.push(ledger::judge_space(&ledger::folder(&path), self.limits.result_bytes));
    }

    /// What the waivers of the policy are worth.
    fn waivers(&mut self, ledger: Option<&LedgerReader>) {
        let policy = &self.request.policy.waivers;
        if policy.files.is_empty() {
            return self.omitted.push(Omitted::new("waivers", "no plan names any"));
        }
        match tokio::task::block_in_place(|| check(policy, ledger, &self.limits, self.clock.now)) {
            Ok(files) => self.checks.extend(files.iter().map(|file| waivers::judge(file, self.clock))),
            Err(error) => self.checks.push(Check::unseen("waivers", "the files of the plan", &error)),
        }
    }

    /// Registries and the bundle; gives what there is to scan with, where there is a bundle that can be used.
    async fn registries(&mut self, registries: &Registries, ledger: Option<&LedgerReader>) -> Option<Content> {
        let access = self.request.access.clone();
        let all = registry::named(&access.registries, access.bundle.as_ref());
        if all.is_empty() {
            self.omitted.push(Omitted::new("registries", "none is named; --registry names one"));
        }
        for (host, how) in &all {
            let checks = registry::look(host, how, registries, &self.limits, self.clock).await;
            self.checks.extend(checks);
        }
        let Some(source) = &access.bundle else {
            self.omitted.push(Omitted::new("trust root and bundle", "no bundle is named; --bundle names one"));
            return None;
        };
        self.checks.extend(registry::look_at_prefix(source, &access.cluster, registries, self.request.push).await);
        self.checks.push(trust::judge_root(source, self.clock));
        let state = source.state.clone().unwrap_or_else(|| access.default_state());
        let remembered = match ledger {
            Some(ledger) => match remembered_with::remembered(&state, ledger, OnLoss::Refuse) {
                Ok(remembered) => remembered,
                Err(error) => {
                    self.checks.push(Check::unseen("bundle", &source.name, &error));
                    return None;
                }
            },
            None => Remembered::in_folder(state),
        };
        let looking = remembered.for_looking();
        let (checks, content) =
            trust::look(source, &looking, registries, &self.request.policy, &self.limits, self.clock).await;
        self.checks.extend(checks);
        content
    }
}

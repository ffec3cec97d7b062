//! One scan's place among the results that are waited for: who may send to it, how often, and what became of it.
//!
//! A token is used up by one whole upload, or by one that no repetition can mend. Until then it is good for one upload at a time:
//! what broke off counts for nothing, not a byte of it is kept, and the agent sends it all again. So nobody gains a second result
//! by a second upload, and a broken connection loses none.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::error::Unspecified;
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, StatusCode};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::receive::Patience;
use super::{DAMAGED, PATH, status};
use crate::base::text::brief;
use crate::cluster::agent::parcel::{Parts, Receiver};
use crate::cluster::error::ClusterError;

/// Bytes of a token: 256 bits.
const TOKEN: usize = 32;
/// Bytes of a slot's name, which is no secret.
const ID: usize = 8;
/// How many uploads of one scan are begun: more than the agent ever tries while it holds.
const ATTEMPTS: u32 = 100;
/// How much of what went wrong for one scan is told.
const TOLD: usize = 8;

/// Makes what takes an upload apart.
pub(super) type Make = Box<dyn Fn() -> Receiver + Send>;

/// What connections look at.
pub(super) struct Desk {
    slots: Mutex<HashMap<String, Slot>>,
    strangers: AtomicU64,
    patience: Patience,
}

struct Slot {
    token: Zeroizing<String>,
    make: Make,
    state: State,
    begun: u32,
    damaged: u32,
    /// Cancelled when nobody waits any more.
    over: CancellationToken,
    story: Arc<Mutex<Story>>,
}

enum State {
    /// Whoever has the token may send.
    Open(oneshot::Sender<Result<Parts, ClusterError>>),
    /// Somebody sends.
    Taking,
    /// It is here, or will never be.
    Settled,
}

/// What went wrong so far.
#[derive(Default)]
struct Story {
    notes: Vec<String>,
    broken: Option<String>,
}

impl Story {
    fn note(&mut self, what: String) {
        if self.notes.len() < TOLD {
            self.notes.push(what);
        }
    }
}

/// The right to send one result, for one scan. When it is dropped, its token is dead, and an upload that goes on is broken off.
pub struct Ticket {
    desk: Arc<Desk>,
    id: String,
    token: Zeroizing<String>,
    story: Arc<Mutex<Story>>,
    answer: oneshot::Receiver<Result<Parts, ClusterError>>,
}

impl fmt::Debug for Ticket {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Ticket {
    /// Names the scan's slot; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token, for the secret that the pod mounts.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Waits until a whole parcel came with the token, and gives its parts.
    ///
    /// # Errors
    /// When what came can't be mended by sending it again: it is too much, can't be kept, or was damaged three times.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn arrived(&mut self) -> Result<Parts, ClusterError> {
        let gone =
            |_| ClusterError::OutputTruncated { detail: "the place where results are taken was closed".to_owned() };
        (&mut self.answer).await.map_err(gone)?
    }

    /// Uploads for this scan that were refused, or that broke off, in words.
    pub fn notes(&self) -> Vec<String> {
        lock(&self.story).notes.clone()
    }

    /// How the last upload broke off, if one did and none after it was whole.
    pub fn broken(&self) -> Option<ClusterError> {
        lock(&self.story).broken.clone().map(|detail| ClusterError::OutputTruncated { detail })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = lock(&self.desk.slots).remove(&self.id) {
            slot.over.cancel();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves what is in it as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the body of an upload ended.
enum Ended {
    /// By its own end.
    Whole,
    /// Before it.
    Cut,
    /// The sender was silent, or too slow.
    Slow,
    /// Something is wrong with what came.
    Wrong,
    /// Nobody waits for it any more.
    Over,
}

impl Desk {
    pub(super) fn new(patience: Patience) -> Self {
        Self { slots: Mutex::default(), strangers: AtomicU64::new(0), patience }
    }

    pub(super) fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    pub(super) fn expect(self: &Arc<Self>, make: Make) -> Result<Ticket, Unspecified> {
        let (mut token, mut id) = (Zeroizing::new([0; TOKEN]), [0; ID]);
        aws_lc_rs::rand::fill(token.as_mut())?;
        aws_lc_rs::rand::fill(&mut id)?;
        let (token, id) = (Zeroizing::new(hex(token.as_ref())), hex(&id));
        let (tell, answer) = oneshot::channel();
        let story = Arc::new(Mutex::new(Story::default()));
        let slot = Slot {
            token: token.clone(),
            make,
            state: State::Open(tell),
            begun: 0,
            damaged: 0,
            over: CancellationToken::new(),
            story: Arc::clone(&story),
        };
        lock(&self.slots).insert(id.clone(), slot);
        Ok(Ticket { desk: Arc::clone(self), id, token, story, answer })
    }

    /// Takes one request; what is answered.
    pub(super) async fn take(self: &Arc<Self>, request: Request<Incoming>) -> StatusCode {
        let (mut turn, mut receiver) = match self.admit(&request) {
            Ok(both) => both,
            Err(status) => return status,
        };
        let ended = turn.read(request.into_body(), &mut receiver, self.patience).await;
        turn.end(ended, receiver)
    }

    /// The turn at the scan's slot that this request is for, if its token is the right one and may be used now, and what takes
    /// its body.
    fn admit(self: &Arc<Self>, request: &Request<Incoming>) -> Result<(Turn, Receiver), StatusCode> {
        let stranger = |status| {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            Err(status)
        };
        let Some(id) = request.uri().path().strip_prefix(PATH) else { return stranger(StatusCode::NOT_FOUND) };
        let given = request.headers().get(hyper::header::AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.get_mut(id) else { return stranger(status::UNKNOWN) };
        let refuse = |slot: &Slot, why: &str, status| {
            lock(&slot.story).note(format!("an upload was refused: {}", brief(why)));
            Err(status)
        };
        if aws_lc_rs::constant_time::verify_slices_are_equal(given, slot.token.as_bytes()).is_err() {
            return refuse(slot, "it had not the scan's token", status::UNKNOWN);
        }
        if request.method() != Method::PUT {
            return refuse(slot, "it had the scan's token and was no PUT", StatusCode::METHOD_NOT_ALLOWED);
        }
        match std::mem::replace(&mut slot.state, State::Taking) {
            State::Open(tell) => {
                slot.begun += 1;
                let over = slot.over.clone();
                let turn = Turn { desk: Arc::clone(self), id: id.to_owned(), over, came: 0, tell: Some(tell) };
                Ok((turn, (slot.make)()))
            }
            State::Taking => refuse(slot, "it had the scan's token while another one went on", status::BUSY),
            State::Settled => {
                slot.state = State::Settled;
                refuse(slot, "the scan's token came again after its result", status::SETTLED)
            }
        }
    }
}

/// One upload. However it ends, the slot is free for the next one, or settled.
struct Turn {
    desk: Arc<Desk>,
    id: String,
    over: CancellationToken,
    came: u64,
    tell: Option<oneshot::Sender<Result<Parts, ClusterError>>>,
}

impl Turn {
    /// Takes the body, until its end, or until there is something wrong with it.
    async fn read(&mut self, mut body: Incoming, receiver: &mut Receiver, patience: Patience) -> Ended {
        let began = Instant::now();
        loop {
            let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            let frame = tokio::select! {
                () = self.over.cancelled() => return Ended::Over,
                frame = tokio::time::timeout(patience.stall, next) => frame,
            };
            let data = match frame {
                Ok(None) => return Ended::Whole,
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(_))) => return Ended::Cut,
                Err(_) => return Ended::Slow,
            };
            self.came += data.len() as u64;
            receiver.take(&data);
            if receiver.failure().is_some() {
                return Ended::Wrong;
            }
            let allowed = patience.stall + Duration::from_secs(self.came / patience.least.max(1));
            if began.elapsed() > allowed {
                return Ended::Slow;
            }
        }
    }

    /// What it comes to, and what the sender is told.
    fn end(mut self, ended: Ended, receiver: Receiver) -> StatusCode {
        let came = self.came;
        match ended {
            Ended::Over => StatusCode::GONE,
            Ended::Cut => self.reopen(format!("an upload broke off after {came} bytes"), status::DAMAGED),
            Ended::Slow => self.reopen(format!("an upload was too slow after {came} bytes"), status::SLOW),
            // Its sender had said that it ends here: what is missing is missing in what was sent.
            Ended::Whole | Ended::Wrong => match receiver.finish() {
                Ok(parts) => self.settle(Ok(parts), StatusCode::NO_CONTENT),
                Err(error @ ClusterError::OutputTruncated { .. }) => self.damaged(error),
                Err(error @ ClusterError::OutputTooLarge { .. }) => {
                    self.settle(Err(error), StatusCode::PAYLOAD_TOO_LARGE)
                }
                Err(error) => self.settle(Err(error), StatusCode::INSUFFICIENT_STORAGE),
            },
        }
    }

    fn damaged(mut self, error: ClusterError) -> StatusCode {
        let times = match lock(&self.desk.slots).get_mut(&self.id) {
            Some(slot) => {
                slot.damaged += 1;
                slot.damaged
            }
            None => DAMAGED,
        };
        match times < DAMAGED {
            true => self.reopen(format!("an upload was damaged: {error}"), status::DAMAGED),
            false => self.settle(Err(error), status::HOPELESS),
        }
    }

    /// Lets the next one try, unless enough have.
    fn reopen(&mut self, why: String, status: StatusCode) -> StatusCode {
        let enough = lock(&self.desk.slots).get(&self.id).is_some_and(|slot| slot.begun >= ATTEMPTS);
        if enough {
            let detail = format!("{ATTEMPTS} uploads were begun and none was whole; at last {why}");
            return self.settle(Err(ClusterError::OutputTruncated { detail }), status::HOPELESS);
        }
        if let Some(slot) = lock(&self.desk.slots).get_mut(&self.id) {
            let mut story = lock(&slot.story);
            story.note(why.clone());
            story.broken = Some(why);
            drop(story);
            if let Some(tell) = self.tell.take() {
                slot.state = State::Open(tell);
            }
        }
        status
    }

    fn settle(&mut self, outcome: Result<Parts, ClusterError>, status: StatusCode) -> StatusCode {
        if let Some(slot) = lock(&self.desk.slots).get_mut(&self.id) {
            slot.state = State::Settled;
            lock(&slot.story).broken = None;
        }
        if let Some(tell) = self.tell.take() {
            // Nobody waits any more where the scan is over.
            let _ = tell.send(outcome);
        }
        status
    }
}

impl Drop for Turn {
    /// Its connection went away while it was waited for.
    fn drop(&mut self) {
        if self.tell.is_some() {
            self.reopen(format!("an upload's connection ended after {} bytes", self.came), status::DAMAGED);
        }
    }
}

//! The stages of the flow, each taking the proof that the one before it made.
<<<<<<< HEAD

pub mod plan;
pub mod schedule;
=======
pub mod export;
>>>>>>> report

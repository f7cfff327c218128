//! Replay: what any exit policy would have done, without decoding anew.
//!
//! Under greedy decoding an exit leaves what was written before it as it was, and what is written after it
//! depends on nothing but that. A [`Recording`] therefore holds, beside the whole output to a question, what
//! the target writes when the thought is closed at each boundary; a [`Track`] adds what a head says there.
//! From both, the outcome of every policy that decides token by token is looked up: [`replay()`] asks the
//! exit logic itself and is the twin that the tests compare with real runs; [`Table`] knows all cuts and
//! answers hundreds of settings in the time of one.
//!
//! Policies that smooth per round (`paper`, `angelslim`) depend on how rounds fell, which a recording does not
//! know: they are refused.

mod outcome;
mod recorder;
mod recording;
mod signals;
mod table;

pub use outcome::{Outcome, replay, replay_probing};
pub(crate) use recorder::answer_confidence;
pub use recorder::{RecordOptions, record};
pub(crate) use recording::RECORDINGS_VERSION;
pub use recording::{Closed, RECORDINGS_FORMAT, Recording};
pub use signals::{SIGNALS_FORMAT, read_signals};
pub(crate) use signals::{SIGNALS_VERSION, SignalLine, unpack};
pub use table::{Costs, Point, Table};

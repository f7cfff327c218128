//! The page about an evaluation: one HTML file made from the folder of `eval` alone.
//!
//! It shows what `eval.json` says, and where the files of the tasks are there, where thoughts ended and
//! could have ended: nothing is measured anew and no model is needed.

mod cuts;
mod folder;
mod frontier;
mod methods;
mod render;
mod signals;
#[cfg(test)]
mod tests;
mod thoughts;

pub use folder::{
    ANSWERS_FILE, EVAL_PAGE_FILE, MAKESPANS_FILE, NUMBERS_FILE, RECORDINGS_FILE, SHEET_FILE,
    SIGNALS_FILE, TEXTS_FILE,
};
pub use render::{EvalPage, EvalPageOptions, write_eval_page};
pub use thoughts::carried_back;

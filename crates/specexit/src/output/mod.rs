//! What the user sees.

mod progress;
mod stdout;
mod stream;
mod thought;

pub(crate) use progress::reporter;
pub(crate) use stdout::{print, print_json};
pub(crate) use stream::{Parts, Shown, TokenStream};

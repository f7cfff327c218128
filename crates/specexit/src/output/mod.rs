//! What the user sees.

mod progress;
mod shaded;
mod stdout;
mod stream;

pub(crate) use progress::reporter;
pub(crate) use shaded::ShadedThought;
pub(crate) use stdout::{print, print_json};
pub(crate) use stream::{Parts, Shown, TokenStream, colours_welcome};

//! What is trained: the draft layer of EAGLE-3 and the signal probe.

pub(crate) mod buffers;
pub(crate) mod decoder;
pub(crate) mod draft;
pub(crate) mod init;
pub(crate) mod params;
pub(crate) mod probe;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod speed;

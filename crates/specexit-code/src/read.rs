//! Reading what a child writes, without keeping it.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

/// Bytes kept from the beginning of a stream.
const HEAD: usize = 256;

/// What is kept of a stream.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

impl Kept {
    fn add(&mut self, bytes: &[u8], longest: usize) {
        let missing = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * longest {
            self.tail.drain(..self.tail.len() - longest);
        }
    }
}

/// Reads to the end, keeps a head and a tail, and reports once when `total` of all streams together
/// is more than `most`. Goes on reading then, so that the child is not held up by a full pipe while
/// it is being ended.
pub(crate) fn drain(
    mut stream: impl Read,
    total: &AtomicU64,
    most: u64,
    longest: usize,
    too_much: &Sender<()>,
) -> Kept {
    let mut kept = Kept::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        kept.add(&buffer[..count], longest);
        let before = total.fetch_add(count as u64, Ordering::Relaxed);
        if before <= most && before + count as u64 > most {
            // The receiver lives until all readers are done.
            let _ = too_much.send(());
        }
    }
    let surplus = kept.tail.len().saturating_sub(longest);
    kept.tail.drain(..surplus);
    kept
}

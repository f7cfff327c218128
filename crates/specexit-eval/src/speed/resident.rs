//! What the process keeps in memory, beside what a target cannot do without.

use std::fs;

use serde::Serialize;

/// Memory in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Of the process, all of it; `None` where there is no `/proc`.
    pub resident_bytes: Option<u64>,
    /// Weights of the target, its embeddings included, and those that drafting reads.
    pub weight_bytes: u64,
    /// Keys and values that the caches have room for.
    pub kv_bytes: u64,
    /// `resident_bytes` over the other two together.
    pub resident_ratio: Option<f64>,
}

impl Memory {
    /// These weights and caches, and what is resident now.
    #[must_use]
    pub fn now(weight_bytes: usize, kv_bytes: usize) -> Self {
        Self::new(resident_bytes(), weight_bytes as u64, kv_bytes as u64)
    }

    fn new(resident_bytes: Option<u64>, weight_bytes: u64, kv_bytes: u64) -> Self {
        let ratio = |resident: u64| resident as f64 / (weight_bytes + kv_bytes) as f64;
        let resident_ratio = resident_bytes.map(ratio);
        Self { resident_bytes, weight_bytes, kv_bytes, resident_ratio }
    }
}

/// Bytes of this process that lie in memory; `None` where there is no `/proc`.
fn resident_bytes() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        assert_eq!(parse("VmHWM:\t 9 kB\nVmRSS:\t    2020 kB\nVmData: 1 kB\n"), Some(2_068_480));
        for status in ["", "VmRSS:\t2020", "VmRSS:\t-1 kB", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(parse(status), None, "{status}");
        }
    }

    #[test]
    fn the_ratio_is_to_weights_and_caches() {
        assert_eq!(Memory::new(Some(300), 120, 30).resident_ratio, Some(2.0));
        assert_eq!(Memory::new(None, 120, 30).resident_ratio, None);
    }
}

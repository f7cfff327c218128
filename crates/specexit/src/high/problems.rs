//! Which problems are to be written.

use std::path::PathBuf;

use specexit_problems::{Difficulty, Problems as Draw};

use crate::failure::usage;
use crate::low;

/// Problems to write.
pub(crate) struct Problems {
    pub(crate) draw: Draw,
    pub(crate) count: usize,
    pub(crate) out: Option<PathBuf>,
}

impl Problems {
    pub(crate) fn new(args: low::Problems) -> anyhow::Result<Self> {
        if args.easiest > args.hardest {
            return usage(format!(
                "--easiest {} is above --hardest {}",
                args.easiest, args.hardest
            ));
        }
        let levels = Difficulty::new(args.easiest)..=Difficulty::new(args.hardest);
        let draw = Draw::new(&args.family, levels, args.split, args.seed);
        Ok(Self { draw, count: args.count, out: args.out })
    }
}

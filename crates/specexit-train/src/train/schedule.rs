//! Learning rates.

/// Linear warm-up, then cosine decay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Highest rate.
    pub(crate) peak: f64,
    /// Rate at the end, as a share of the peak.
    pub(crate) last: f64,
    /// Share of the updates that warm up.
    pub(crate) warmup: f64,
    /// Number of updates.
    pub(crate) updates: u64,
}

impl Schedule {
    /// The rate of update `update`, counted from 0.
    pub(crate) fn rate(&self, update: u64) -> f64 {
        let warm = (self.updates as f64 * self.warmup).ceil();
        let at = update as f64;
        if at < warm {
            return self.peak * (at + 1.0) / warm;
        }
        let span = (self.updates as f64 - warm).max(1.0);
        let share = ((at - warm) / span).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
        self.peak * (self.last + (1.0 - self.last) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_last_rate() {
        let schedule = Schedule { peak: 2.0, last: 0.1, warmup: 0.1, updates: 100 };
        assert!((schedule.rate(0) - 0.2).abs() < 1e-12);
        assert!((schedule.rate(9) - 2.0).abs() < 1e-12);
        assert!((schedule.rate(10) - 2.0).abs() < 1e-12);
        assert!((schedule.rate(100) - 0.2).abs() < 1e-12);
        assert!((0..99).all(|s| s < 10 || schedule.rate(s + 1) <= schedule.rate(s)));
        let none = Schedule { warmup: 0.0, updates: 1, ..schedule };
        assert!((none.rate(0) - 2.0).abs() < 1e-12);
    }
}

//! How much of the machine other processes had while something was measured.

use std::fs;

/// CPU time so far, in ticks of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    /// Of all processors, idle or not.
    total: u64,
    /// In which they did something, for this machine or, where it is a virtual one, for others on its host.
    busy: u64,
    /// Of this process and of the children that it has waited for.
    own: u64,
}

impl CpuTimes {
    /// The times now; `None` where there is no `/proc`.
    #[must_use]
    pub fn now() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, &own)
    }

    fn parse(machine: &str, own: &str) -> Option<Self> {
        // user nice system idle iowait irq softirq steal; what follows is counted in user and nice already.
        let times = machine.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> =
            times.split_whitespace().take(8).map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let total = times.iter().sum();
        let idle: u64 = times.iter().skip(3).take(2).sum();
        // The name, in parentheses, may hold anything; behind it the state is the first field, and utime, stime,
        // cutime and cstime come eleven later.
        let (_, fields) = own.rsplit_once(')')?;
        let fields = fields.split_whitespace().skip(11).take(4);
        let own: Vec<u64> = fields.map(|n| n.parse().ok()).collect::<Option<_>>()?;
        (times.len() >= 5 && own.len() == 4).then(|| Self {
            total,
            busy: total - idle,
            own: own.iter().sum(),
        })
    }

    /// The share, 0 to 1, of the time of all processors since `before` that others took; `None` if no time has
    /// passed.
    #[must_use]
    pub fn others_since(&self, before: &Self) -> Option<f64> {
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let total = since(self.total, before.total);
        let others = since(self.busy, before.busy) - since(self.own, before.own);
        // The clocks are read one after the other, so that a quiet machine may come out a little below 0.
        (total > 0.0).then(|| (others / total).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 20 30 1000 50 1 2 3 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
    const OWN: &str = "7 (a ) b) R 1 7 7 0 -1 4194304 101 0 0 0 40 5 6 1 20 0 1 0 6905220";

    #[test]
    fn times_are_read() {
        let times = CpuTimes { total: 1206, busy: 156, own: 52 };
        assert_eq!(CpuTimes::parse(STAT, OWN), Some(times));
        for (machine, own) in
            [("", OWN), ("cpu 1 2", OWN), ("cpu 1 2 3 4 x", OWN), (STAT, ""), (STAT, "7 (a) R 1 2")]
        {
            assert_eq!(CpuTimes::parse(machine, own), None, "{machine} {own}");
        }
    }

    #[test]
    fn what_is_busy_and_not_our_own_is_of_others() {
        let before = CpuTimes { total: 1000, busy: 500, own: 100 };
        let now = |busy, own| CpuTimes { total: 1200, busy, own };
        assert_eq!(now(650, 200).others_since(&before), Some(0.25));
        assert_eq!(now(600, 201).others_since(&before), Some(0.0));
        assert_eq!(before.others_since(&before), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_says() {
        assert!(CpuTimes::now().is_some_and(|now| now.total > now.busy));
    }
}

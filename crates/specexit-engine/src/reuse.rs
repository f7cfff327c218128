//! Caches that the engine keeps, for requests to come that begin alike.

use std::sync::Arc;

use specexit_exit::TokenId;

use crate::prefix::Prefix;

/// Shared tokens below which copying caches is not worth it.
const LEAST_SHARED: usize = 16;

/// Kept prefixes; those used least recently go first.
pub(crate) struct PrefixStore {
    /// Bytes of keys and values held at most; 0 keeps nothing.
    limit: usize,
    /// Least recently used first.
    kept: Vec<Arc<Prefix>>,
}

impl PrefixStore {
    pub(crate) fn new(limit: usize) -> PrefixStore {
        PrefixStore { limit, kept: Vec::new() }
    }

    /// Bytes of keys and values held.
    pub(crate) fn bytes(&self) -> usize {
        self.kept.iter().map(|prefix| prefix.bytes()).sum()
    }

    /// The prefix that saves `prompt` the most tokens, and how many; `None` where it is not worth it.
    pub(crate) fn find(
        &mut self,
        prompt: &[TokenId],
        drafts: bool,
    ) -> Option<(Arc<Prefix>, usize)> {
        let shared = self.kept.iter().map(|prefix| prefix.shared(prompt, drafts)).enumerate();
        let (at, count) = shared.max_by_key(|(_, count)| *count)?;
        (count >= LEAST_SHARED).then(|| (self.touch(at), count))
    }

    /// Whether to make a prefix of `tokens` with `pairs` pairs of the head: it is long enough, and nothing
    /// kept does as well.
    pub(crate) fn wants(&mut self, tokens: &[TokenId], pairs: usize) -> bool {
        if self.limit == 0 || tokens.len() < LEAST_SHARED {
            return false;
        }
        match self.kept.iter().position(|kept| kept.reaches(tokens, pairs)) {
            Some(at) => {
                self.touch(at);
                false
            }
            None => true,
        }
    }

    /// Keeps `prefix`, in the place of all that it covers, unless it is too large by itself.
    pub(crate) fn keep(&mut self, mut prefix: Prefix) {
        if prefix.bytes() > self.limit {
            return;
        }
        prefix.cache.shrink();
        prefix.draft.iter_mut().for_each(|draft| draft.shrink());
        self.kept.retain(|kept| !prefix.covers(kept));
        self.kept.push(Arc::new(prefix));
        while self.bytes() > self.limit {
            self.kept.remove(0);
        }
    }

    /// Counts the use of what is kept at `at`.
    fn touch(&mut self, at: usize) -> Arc<Prefix> {
        let prefix = self.kept.remove(at);
        self.kept.push(Arc::clone(&prefix));
        prefix
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use specexit_kernels::Precision;
    use specexit_model::{KvCache, LogitRows, Model, ModelSource, TargetRows, Workspace};

    use super::*;

    /// A cache over `len` positions.
    fn cache(len: usize) -> KvCache {
        static MODEL: OnceLock<Model> = OnceLock::new();
        let model = MODEL.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            specexit_testkit::write_model(dir.path(), 1).unwrap();
            let source = ModelSource::Folder(dir.path().to_owned());
            Model::load(&source, 1, Precision::Bf16).unwrap()
        });
        let mut cache = model.target.new_cache();
        let tokens = vec![1; len];
        let rows = TargetRows { tokens: &tokens, cache: &mut cache, logits: LogitRows::None };
        model.target.forward(&mut [rows], &mut Workspace::default()).unwrap();
        cache
    }

    fn prefix(tokens: &[TokenId], pairs: Option<usize>) -> Prefix {
        Prefix { tokens: tokens.to_vec(), cache: cache(tokens.len()), draft: pairs.map(cache) }
    }

    fn run(first: TokenId, len: usize) -> Vec<TokenId> {
        (0..len as TokenId).map(|i| first + i).collect()
    }

    #[test]
    fn the_most_shared_tokens_win() {
        let mut store = PrefixStore::new(usize::MAX);
        store.keep(prefix(&run(0, 20), None));
        store.keep(prefix(&[run(0, 18), run(100, 30)].concat(), Some(40)));
        let prompt = [run(0, 18), run(100, 9), run(7, 5)].concat();
        assert_eq!(store.find(&prompt, false).map(|found| found.1), Some(27));
        // The pair before token 26 is the last whose token is shared.
        assert_eq!(store.find(&prompt, true).map(|found| found.1), Some(26));
        assert_eq!(store.find(&run(0, 20), false).map(|found| found.1), Some(19));
        // Only the second has pairs, and 17 of them within what is shared.
        assert_eq!(store.find(&run(0, 20), true).map(|found| found.1), Some(17));
        assert_eq!(store.find(&run(0, 16), false).map(|found| found.1), None);
        assert_eq!(store.find(&run(50, 40), false).map(|found| found.1), None);
    }

    #[test]
    fn what_is_covered_is_replaced_and_what_does_as_well_is_not_kept_twice() {
        let mut store = PrefixStore::new(usize::MAX);
        let one = prefix(&run(0, 20), Some(19)).bytes();
        store.keep(prefix(&run(0, 20), Some(19)));
        assert!(!store.wants(&run(0, 20), 19) && !store.wants(&run(0, 18), 0));
        assert!(store.wants(&run(0, 21), 0) && store.wants(&run(0, 20), 20));
        assert!(!store.wants(&run(60, 15), 0));
        // Without pairs it is no replacement for one with them.
        store.keep(prefix(&run(0, 30), None));
        assert_eq!(store.bytes(), one + prefix(&run(0, 30), None).bytes());
        store.keep(prefix(&run(0, 31), Some(30)));
        assert_eq!(store.bytes(), prefix(&run(0, 31), Some(30)).bytes());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let size = prefix(&run(0, 20), None).bytes();
        let mut store = PrefixStore::new(3 * size);
        for first in [0, 100, 200] {
            store.keep(prefix(&run(first, 20), None));
        }
        assert!(store.find(&run(0, 30), false).is_some());
        store.keep(prefix(&run(300, 20), None));
        assert_eq!(store.bytes(), 3 * size);
        let kept = [0, 100, 200, 300].map(|first| store.find(&run(first, 30), false).is_some());
        assert_eq!(kept, [true, false, true, true]);
        // One that is too large pushes nothing out.
        store.keep(prefix(&run(0, 61), None));
        assert_eq!(store.bytes(), 3 * size);
        assert!(!PrefixStore::new(0).wants(&run(0, 20), 0));
    }
}

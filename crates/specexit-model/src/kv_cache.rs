//! Keys and values of one sequence over all layers, truncatable to any length.

use specexit_kernels::{CacheNumbers, KeysValues};

/// The key/value cache of one sequence.
///
/// Each layer holds its own [`KeysValues`]. Memory is taken for [`KeysValues::PANEL`] positions at a time.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<KeysValues>,
    len: usize,
}

impl KvCache {
    /// An empty cache for `layers` layers of `kv_heads` heads of `head_dim` keys and values.
    pub fn new(layers: usize, kv_heads: usize, head_dim: usize, numbers: CacheNumbers) -> KvCache {
        let empty = KeysValues::new(kv_heads, head_dim, numbers);
        KvCache { layers: vec![empty; layers], len: 0 }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets every position from `len` on; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        self.layers.iter_mut().for_each(|layer| layer.truncate(len));
        self.len = len;
    }

    /// A copy of the first `len` positions (all of them when fewer are held).
    pub fn fork(&self, len: usize) -> KvCache {
        let len = len.min(self.len);
        KvCache { layers: self.layers.iter().map(|layer| layer.fork(len)).collect(), len }
    }

    /// Makes room for `positions` in all, so that appending up to there moves nothing and holds no more memory
    /// than [`KvCache::bytes_for`] says.
    pub fn reserve(&mut self, positions: usize) {
        self.layers.iter_mut().for_each(|layer| layer.reserve(positions));
    }

    /// Gives back the room beyond what is held.
    pub fn shrink(&mut self) {
        self.layers.iter_mut().for_each(KeysValues::shrink);
    }

    /// Bytes that hold so many positions: whole panels of them.
    pub fn bytes_for(&self, positions: usize) -> usize {
        let panel: usize = self.layers.iter().map(KeysValues::panel_bytes).sum();
        positions.div_ceil(KeysValues::PANEL) * panel
    }

    /// Bytes held by keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes_for(self.len)
    }

    /// Keys and values of `layer`, to be appended to.
    ///
    /// Every layer must be given the same positions before [`KvCache::advance`] counts them.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut KeysValues {
        &mut self.layers[layer]
    }

    /// Counts `rows` positions that were appended to every layer.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
        debug_assert!(self.layers.iter().all(|layer| layer.len() == self.len));
    }

    /// Keys and values of `layer`, those pushed but not yet counted included.
    pub(crate) fn layer(&self, layer: usize) -> &KeysValues {
        &self.layers[layer]
    }
}

#[cfg(test)]
mod tests {
    use specexit_kernels::{Kernels, Precision};

    use super::*;

    fn filled(positions: usize, numbers: CacheNumbers) -> KvCache {
        let mut cache = KvCache::new(2, 1, 3, numbers);
        for p in 0..positions {
            append(&mut cache, p);
        }
        cache
    }

    fn append(cache: &mut KvCache, p: usize) {
        let kernels = Kernels::new(1, Precision::F32);
        for layer in 0..2 {
            cache.layer_mut(layer).push(&kernels, &[p as f32; 3], &[-(p as f32); 3]);
        }
        cache.advance(1);
    }

    /// The first number of each key and value.
    fn held(cache: &KvCache, layer: usize) -> Vec<[f32; 2]> {
        let (mut key, mut value) = ([0.0; 3], [0.0; 3]);
        let read = |p| {
            cache.layer(layer).read(p, &mut key, &mut value);
            [key[0], value[0]]
        };
        (0..cache.len()).map(read).collect()
    }

    const ALL: [CacheNumbers; 3] = [CacheNumbers::F32, CacheNumbers::Bf16, CacheNumbers::Int8];

    #[test]
    fn bytes_are_those_that_are_taken() {
        for numbers in ALL {
            let mut cache = filled(5, numbers);
            cache.reserve(40);
            let taken: usize = cache.layers.iter().map(KeysValues::capacity_bytes).sum();
            assert_eq!((cache.bytes_for(40), cache.bytes()), (taken, taken / 3));
            cache.shrink();
            let taken: usize = cache.layers.iter().map(KeysValues::capacity_bytes).sum();
            assert_eq!(cache.bytes(), taken);
        }
    }

    #[test]
    fn truncate_and_append_equals_never_having_had_more() {
        for numbers in ALL {
            let mut cache = filled(7, numbers);
            cache.truncate(3);
            cache.truncate(5);
            assert_eq!(cache.len(), 3);
            assert_eq!(held(&cache, 1), held(&filled(3, numbers), 1));
            append(&mut cache, 3);
            assert_eq!(held(&cache, 0), held(&filled(4, numbers), 0));
        }
    }

    #[test]
    fn fork_copies_a_prefix() {
        for numbers in ALL {
            let fork = filled(5, numbers).fork(2);
            assert_eq!(fork.len(), 2);
            assert_eq!(held(&fork, 0), held(&filled(2, numbers), 0));
            assert_eq!(filled(2, numbers).fork(9).len(), 2);
        }
    }
}

//! Keys and values of one sequence, one buffer pair per layer, truncatable to any length.

/// The key/value cache of one sequence.
///
/// Each layer holds keys and values position-major, `[len, kv_heads * head_dim]` in f32, so that
/// truncating is a change of length and appending never moves what is there except when a buffer grows.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    width: usize,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for `layers` layers of `width = kv_heads * head_dim` numbers a position.
    pub fn new(layers: usize, width: usize) -> KvCache {
        KvCache { layers: vec![LayerCache::default(); layers], width, len: 0 }
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
        for layer in &mut self.layers {
            layer.keys.truncate(len * self.width);
            layer.values.truncate(len * self.width);
        }
        self.len = len;
    }

    /// A copy of the first `len` positions (all of them when fewer are held).
    pub fn fork(&self, len: usize) -> KvCache {
        let len = len.min(self.len);
        let end = len * self.width;
        let layers = self
            .layers
            .iter()
            .map(|l| LayerCache { keys: l.keys[..end].to_vec(), values: l.values[..end].to_vec() })
            .collect();
        KvCache { layers, width: self.width, len }
    }

    /// Makes room for `positions` in all, so that appending up to there moves nothing and holds no more memory
    /// than [`KvCache::bytes`] will then say.
    pub fn reserve(&mut self, positions: usize) {
        let more = positions.saturating_sub(self.len) * self.width;
        for layer in &mut self.layers {
            layer.keys.reserve_exact(more);
            layer.values.reserve_exact(more);
        }
    }

    /// Gives back the room beyond what is held.
    pub fn shrink(&mut self) {
        for layer in &mut self.layers {
            layer.keys.shrink_to_fit();
            layer.values.shrink_to_fit();
        }
    }

    /// Bytes held by keys and values.
    pub fn bytes(&self) -> usize {
        self.layers.len() * 2 * self.len * self.width * size_of::<f32>()
    }

    /// Appends one position to `layer`: `key` and `value` are `[kv_heads * head_dim]`.
    ///
    /// Every layer must be given the same positions before [`KvCache::advance`] counts them.
    pub(crate) fn push(&mut self, layer: usize, key: &[f32], value: &[f32]) {
        debug_assert_eq!(key.len(), self.width);
        self.layers[layer].keys.extend_from_slice(key);
        self.layers[layer].values.extend_from_slice(value);
    }

    /// Counts `rows` positions that [`KvCache::push`] added to every layer.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.len += rows;
        debug_assert!(self.layers.iter().all(|l| l.keys.len() == self.len * self.width));
    }

    /// Keys of `layer`, `[positions, kv_heads * head_dim]`, those pushed but not yet counted included.
    pub(crate) fn keys(&self, layer: usize) -> &[f32] {
        &self.layers[layer].keys
    }

    /// Values of `layer`, shaped as [`KvCache::keys`].
    pub(crate) fn values(&self, layer: usize) -> &[f32] {
        &self.layers[layer].values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(positions: usize) -> KvCache {
        let mut cache = KvCache::new(2, 3);
        for p in 0..positions {
            for layer in 0..2 {
                cache.push(layer, &[p as f32; 3], &[-(p as f32); 3]);
            }
            cache.advance(1);
        }
        cache
    }

    #[test]
    fn truncate_and_append_equals_never_having_had_more() {
        let mut cache = filled(7);
        cache.truncate(3);
        cache.truncate(5);
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.keys(1), filled(3).keys(1));
        for layer in 0..2 {
            cache.push(layer, &[3.0; 3], &[-3.0; 3]);
        }
        cache.advance(1);
        assert_eq!(cache.values(0), filled(4).values(0));
    }

    #[test]
    fn room_is_for_exactly_what_was_reserved_and_can_be_given_back() {
        let mut cache = filled(3);
        cache.reserve(50);
        let keys = cache.keys(1).as_ptr();
        for p in 3..50 {
            for layer in 0..2 {
                cache.push(layer, &[p as f32; 3], &[-(p as f32); 3]);
            }
            cache.advance(1);
        }
        assert_eq!((cache.keys(1).as_ptr(), cache.layers[1].keys.capacity()), (keys, 150));
        assert_eq!(cache.values(0), filled(50).values(0));
        cache.truncate(7);
        cache.reserve(2);
        cache.shrink();
        assert_eq!((cache.layers[0].values.capacity(), cache.len()), (21, 7));
        assert_eq!(cache.keys(1), filled(7).keys(1));
    }

    #[test]
    fn fork_copies_a_prefix() {
        let fork = filled(5).fork(2);
        assert_eq!(fork.len(), 2);
        assert_eq!(fork.keys(0), filled(2).keys(0));
        assert_eq!(filled(2).fork(9).len(), 2);
    }
}

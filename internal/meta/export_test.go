package meta

// Waiting returns the number of requests that wait.
func (t *Tree) Waiting() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.waiters)
}

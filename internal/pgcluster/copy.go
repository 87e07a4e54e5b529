package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// Backup copies the cluster's files to a cluster of its own, as they are when the server has been shut down, slots included; the server is
// down only meanwhile. The copy is not started: [Cluster.Restart] does that, on a port of its own.
func (c *Cluster) Backup(ctx context.Context) (*Cluster, error) {
	c.shutDown()
	b := &Cluster{bin: c.bin, version: c.version, as: c.as}
	err := b.makeDir("")
	if err == nil {
		err = b.copyData(c.data())
	}
	if err == nil {
		err = b.configure(nil) // its socket
	}
	if err = errors.Join(err, c.start(ctx)); err != nil {
		b.Stop()
		return nil, err
	}
	return b, nil
}

// Standby makes a hot standby out of a backup, and starts it. It streams from the cluster. As from pg_basebackup, it has no slots.
func (c *Cluster) Standby(ctx context.Context, settings map[string]string) (*Cluster, error) {
	b, err := c.Backup(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.follow(ctx, c, settings); err != nil {
		b.Stop()
		return nil, err
	}
	return b, nil
}

// follow starts the copy of a primary as its standby.
func (c *Cluster) follow(ctx context.Context, primary *Cluster, settings map[string]string) error {
	slots := filepath.Join(c.data(), "pg_replslot")
	entries, err := os.ReadDir(slots)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(slots, e.Name())); err != nil {
			return err
		}
	}
	all := map[string]string{"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", primary.port)}
	maps.Copy(all, settings)
	if err := errors.Join(c.configure(all), os.WriteFile(filepath.Join(c.data(), "standby.signal"), nil, 0o600)); err != nil {
		return err
	}
	return c.startSomewhere(ctx)
}

// copyData copies a data directory, with the modes that Postgres insists on, for the server's user.
func (c *Cluster) copyData(from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil || name == "postmaster.pid" {
			return err
		}
		to := filepath.Join(c.data(), name)
		if entry.IsDir() {
			err = os.Mkdir(to, 0o700)
		} else {
			err = copyFile(to, path)
		}
		if err == nil && c.as != nil {
			err = os.Chown(to, int(c.as.Uid), int(c.as.Gid))
		}
		return err
	})
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

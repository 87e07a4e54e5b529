package pgcluster

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestDiesWithItsCaller kills a process that runs a cluster and waits for the server to be gone.
func TestDiesWithItsCaller(t *testing.T) {
	t.Parallel()
	caller := exec.Command(os.Args[0], "-test.run=^TestCaller$")
	caller.Env = append(os.Environ(), "PGCLUSTER_CALLER=1")
	out, err := caller.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := caller.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = caller.Wait() // it was killed, it says
	for deadline := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
			t.Fatalf("the server outlives its caller")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestCaller is no test by itself: it starts a cluster and waits to be killed.
func TestCaller(t *testing.T) {
	if os.Getenv("PGCLUSTER_CALLER") == "" {
		return
	}
	c := start(t, Options{})
	fmt.Println(postmaster(t, c), c.Dir)
	select {}
}

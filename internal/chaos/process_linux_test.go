package chaos

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// attributes make the kernel kill the child when this process dies.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// children are the processes that a process has started, of all its threads.
func children(pid int) (all []int, err error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("looking for children: %w", err)
	}
	for _, t := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		if err != nil {
			return nil, fmt.Errorf("looking for children: %w", err)
		}
		for word := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("looking for children: %w", err)
			}
			all = append(all, child)
		}
	}
	return all, nil
}

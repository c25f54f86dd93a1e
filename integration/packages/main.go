// Many threads that the runtime interrupts with SIGURG while they wait in calls that the emulation answers.
package main

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Never lets go of its thread by itself.
func spin() {
	for n := 0; ; n++ {
	}
}

func work(directory string, number int) {
	for round := 0; round < 20; round++ {
		name := fmt.Sprintf("%s/%d-%d", directory, number, round%10)
		check(os.WriteFile(name, []byte(name), 0o640))
		check(os.Chown(name, 1000+number, 2000+number))
		check(syscall.Chmod(name, 0o4750))
		info, err := os.Stat(name)
		check(err)
		status := info.Sys().(*syscall.Stat_t)
		if status.Uid != uint32(1000+number) || status.Gid != uint32(2000+number) || status.Mode&0o7777 != 0o4750 {
			check(fmt.Errorf("%s: %d:%d %o", name, status.Uid, status.Gid, status.Mode))
		}
		check(os.Rename(name, name+".new"))
		check(os.Rename(name+".new", name))
	}
}

func main() {
	check(os.MkdirAll(os.Args[1], 0o711))
	go spin()
	var all sync.WaitGroup
	for number := 0; number < 8; number++ {
		all.Add(1)
		go func(number int) { defer all.Done(); work(os.Args[1], number) }(number)
	}
	all.Wait()
}

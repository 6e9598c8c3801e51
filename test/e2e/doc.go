// Package e2e has the end-to-end tests: iscsid and iscsictl as they are
// installed, driven as an administrator drives them, against software that this
// project has not written (tgt's target, fio, qemu, libnbd, Wireshark, the
// kernel's file systems), and against the embedded target where a peer must
// misbehave on purpose.
//
//	go test ./test/e2e
//
// A test that lacks a program or a privilege is skipped and says which. With
// -race, iscsid is built with the race detector too. Where SOAKTIME is set, as
// by "make soak", the loads are bigger.
package e2e

// Checks checkpoints and proofs of an audit log with the packages of Go's own checksum database: sumdb/note opens the
// signatures, sumdb/tlog checks inclusion and consistency. Nothing here knows how the log computes them.
package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// checkpoint opens a signed note and reads its first three lines.
func checkpoint(msg []byte, keys note.Verifiers) tlog.Tree {
	opened, err := note.Open(msg, keys)
	check(err)
	lines := strings.SplitN(opened.Text, "\n", 2)
	// ParseTree expects the origin of Go's database; the rest is the same format.
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + lines[1]))
	check(err)
	return tree
}

func hashes(lines []string) (found []tlog.Hash) {
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		check(err)
		found = append(found, hash)
	}
	return found
}

// usage: verifier KEY FILE...; files end in .checkpoint, .tlog-proof (record included) or .consistency (preceded by
// the older checkpoint, `older` and a line of dashes).
func main() {
	verifier, err := note.NewVerifier(os.Args[1])
	check(err)
	keys := note.VerifierList(verifier)
	for _, name := range os.Args[2:] {
		data, err := os.ReadFile(name)
		check(err)
		switch name[strings.LastIndex(name, "."):] {
		case ".checkpoint":
			tree := checkpoint(data, keys)
			fmt.Println("checkpoint", tree.N, tree.Hash)
		case ".tlog-proof":
			parts := bytes.SplitN(data, []byte("\n\n"), 2)
			tree := checkpoint(parts[1], keys)
			lines := strings.Split(string(parts[0]), "\n")
			if lines[0] != "c2sp.org/tlog-proof@v1" {
				check(fmt.Errorf("%s: not a proof", name))
			}
			record, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
			check(err)
			var index int64
			_, err = fmt.Sscanf(lines[2], "index %d", &index)
			check(err)
			check(tlog.CheckRecord(hashes(lines[3:]), tree.N, tree.Hash, index, tlog.RecordHash(record)))
			fmt.Println("record", index, "of", tree.N)
		case ".consistency":
			parts := strings.SplitN(string(data), "-----\n", 2)
			older := checkpoint([]byte(parts[0]), keys)
			body := strings.SplitN(parts[1], "\n\n", 2)
			newer := checkpoint([]byte(body[1]), keys)
			lines := strings.Split(body[0], "\n")
			if lines[0] != fmt.Sprintf("old %d", older.N) {
				check(fmt.Errorf("%s: not from the older checkpoint", name))
			}
			check(tlog.CheckTree(hashes(lines[1:]), newer.N, newer.Hash, older.N, older.Hash))
			fmt.Println("tree", older.N, "to", newer.N)
		default:
			check(fmt.Errorf("%s: unknown kind of file", name))
		}
	}
}

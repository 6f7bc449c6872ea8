package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// machines has what an ELF file says of the architectures that images are built for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// A program is what the loader must know of an ELF file.
type program struct {
	Machine     elf.Machine
	Interpreter string
	Needed      []string
}

// readProgram reads an ELF file (System V ABI, chapter 5: dynamic linking).
func readProgram(r io.ReaderAt) (program, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return program{}, err
	}
	p := program{Machine: f.Machine}
	for _, segment := range f.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		raw, err := io.ReadAll(segment.Open())
		if err != nil {
			return program{}, err
		}
		p.Interpreter = string(bytes.TrimRight(raw, "\x00"))
	}
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return p, nil
	}
	p.Needed, err = f.ImportedLibraries()
	return p, err
}

// closure returns the path of a binary's loader, and the names of all libraries it needs, directly or by another. All
// of them must be in dir. The loader is not among the names: libraries need it too, and have it already.
func closure(binary, dir string, machine elf.Machine) (interpreter string, libraries []string, err error) {
	todo := []string{binary}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		p, err := openProgram(path)
		if err != nil {
			return "", nil, err
		}
		if p.Machine != machine {
			return "", nil, fmt.Errorf("read %s: it is for %s, not for %s", path, p.Machine, machine)
		}
		if path == binary {
			interpreter = p.Interpreter
		}
		for _, name := range p.Needed {
			if name != filepath.Base(interpreter) && !slices.Contains(libraries, name) {
				libraries = append(libraries, name)
				todo = append(todo, filepath.Join(dir, name))
			}
		}
	}
	slices.Sort(libraries)
	return interpreter, libraries, nil
}

func openProgram(path string) (program, error) {
	f, err := os.Open(path)
	if err != nil {
		return program{}, err
	}
	defer f.Close()
	p, err := readProgram(f)
	if err != nil {
		return program{}, fmt.Errorf("read %s: %w", path, err)
	}
	return p, nil
}

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mmrun/mmrun/rewriter"
)

const rewriteHelp = `Rewrite a module as mmrun does before it runs it, and say what its state
consists of. The result is written to OUT, - for standard output; without -o nothing is written.`

func (a *app) rewriteCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:               "rewrite IN [-o OUT]",
		Short:             "Show what mmrun makes of a module",
		Long:              rewriteHelp,
		ValidArgsFunction: completeModule,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%d arguments given, want one module (usage: %s)", len(args),
					cmd.UseLine())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.rewrite(args[0], out) },
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the rewritten module to `OUT`")
	return cmd
}

func (a *app) rewrite(in, out string) error {
	wasm, err := os.ReadFile(in)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	rewritten, info, err := rewriter.Rewrite(wasm, rewriter.Options{})
	if err != nil {
		return fmt.Errorf("module %s: %w", in, err)
	}
	if out == "-" {
		_, err := a.out.Write(rewritten)
		return err
	}
	if out != "" {
		if err := replaceFile(out, rewritten); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(info)
	}
	return printInfo(a.out, len(wasm), len(rewritten), info)
}

// replaceFile writes a file whole or not at all; it may be the one that was read.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+temporarySuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it has its name
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// printInfo says what the state of a module consists of.
func printInfo(w io.Writer, before, after int, info rewriter.Info) error {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	line("size       %d bytes, rewritten %d", before, after)
	if m := info.Memory; m != nil && m.HasMax {
		line("memory     %d to %d wasm pages", m.Min, m.Max)
	} else if m != nil {
		line("memory     %d wasm pages and more", m.Min)
	}
	for _, g := range info.Globals {
		line("global     %d %s %s", g.Index, g.Type, escapeName(g.Name))
	}
	for _, t := range info.Tables {
		line("table      %d %s, %d entries at first", t.Index, t.Type, t.Min)
	}
	for _, s := range info.Segments {
		line("segment    %s %d, can be dropped", s.Kind, s.Index)
	}
	for _, once := range []struct {
		there bool
		what  string
	}{
		{info.Init != "", "data segments"},
		{info.Start != "", "start function"},
		{info.Initialize, "_initialize"},
	} {
		if once.there {
			line("once       %s", once.what)
		}
	}
	return nil
}

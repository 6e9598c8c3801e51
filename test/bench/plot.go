package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"strings"
)

// The plots are SVG, written here: lines over two logarithmic scales are all that
// is wanted, for which a library of plots would bring a dozen modules.

// line is a contender in a panel.
type line struct {
	name   string
	points []point
}

type point struct{ x, y, low, high float64 }

// panel is one diagram.
type panel struct {
	title, axis string
	lines       []line
}

// add puts the medians of a row's sides at x, and from where to where they vary.
func (p *panel) add(x int, sides []side, get func(*sample) float64) {
	for i := range sides {
		values := sides[i].of(get)
		if len(p.lines) <= i {
			p.lines = append(p.lines, line{name: sides[i].name})
		}
		if len(values) == 0 || median(values) <= 0 {
			continue
		}
		q := point{x: float64(x), y: median(values), low: math.Inf(1)}
		for _, v := range values {
			q.low, q.high = min(q.low, v), max(q.high, v)
		}
		p.lines[i].points = append(p.lines[i].points, q)
	}
}

// The places of things, in units of about a pixel.
const (
	panelWidth, panelHeight = 420, 270
	marginLeft, marginRight = 62, 14
	marginTop, marginBottom = 28, 44
	legendHeight            = 30
	panelsAcross            = 2
)

// lineColours can be told apart by most who do not see all colours (Okabe and Ito).
var lineColours = []string{"#d55e00", "#0072b2", "#009e73", "#666666", "#cc79a7", "#e69f00"}

// writeSVG draws panels beside and below each other.
func writeSVG(path string, panels []panel) error {
	var b strings.Builder
	width, height := panelsAcross*panelWidth, legendHeight+(len(panels)+panelsAcross-1)/panelsAcross*panelHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	if len(panels) > 0 {
		for i, l := range panels[0].lines {
			x := marginLeft + i*150
			fmt.Fprintf(&b, `<path d="M%d 16h24" stroke="%s" stroke-width="2"/><text x="%d" y="20">%s</text>`+"\n",
				x, lineColours[i%len(lineColours)], x+30, html.EscapeString(l.name))
		}
	}
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%panelsAcross*panelWidth, legendHeight+i/panelsAcross*panelHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// scale maps values to places, logarithmically.
type scale struct{ from, to, start, end float64 }

func (s scale) at(v float64) float64 {
	if s.to <= s.from {
		return s.start
	}
	return s.start + (math.Log(v)-math.Log(s.from))/(math.Log(s.to)-math.Log(s.from))*(s.end-s.start)
}

func (p *panel) draw(b *strings.Builder) {
	x := scale{math.Inf(1), 0, marginLeft, panelWidth - marginRight}
	y := scale{math.Inf(1), 0, panelHeight - marginBottom, marginTop}
	var places []float64
	for _, l := range p.lines {
		for _, q := range l.points {
			x.from, x.to = min(x.from, q.x), max(x.to, q.x)
			y.from, y.to = min(y.from, q.low), max(y.to, q.high)
			places = append(places, q.x)
		}
	}
	fmt.Fprintf(b, `<text x="%d" y="18" font-weight="bold">%s</text>`+"\n", marginLeft, html.EscapeString(p.title))
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n",
		(marginLeft+panelWidth-marginRight)/2, panelHeight-8, html.EscapeString(p.axis))
	if len(places) == 0 {
		return
	}
	y.from, y.to = roundDown(y.from), roundUp(y.to)
	for v := y.from; v <= y.to*1.001; v = next(v) {
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#dddddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			marginLeft, y.at(v), panelWidth-marginRight, marginLeft-6, y.at(v)+4, short(v))
	}
	drawn := map[float64]bool{}
	for _, v := range places {
		if !drawn[v] {
			drawn[v] = true
			fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x.at(v), panelHeight-marginBottom+16, v)
		}
	}
	for i, l := range p.lines {
		l.draw(b, x, y, lineColours[i%len(lineColours)])
	}
}

// draw draws the medians as a line, and how far they vary as strokes across it.
func (l *line) draw(b *strings.Builder, x, y scale, colour string) {
	if len(l.points) == 0 {
		return
	}
	fmt.Fprintf(b, `<g stroke="%s" fill="none"><path stroke-width="2" d="`, colour)
	for i, q := range l.points {
		step := "L"
		if i == 0 {
			step = "M"
		}
		fmt.Fprintf(b, "%s%.1f %.1f", step, x.at(q.x), y.at(q.y))
	}
	b.WriteString(`"/><path stroke-opacity="0.5" d="`)
	for _, q := range l.points {
		fmt.Fprintf(b, "M%.1f %.1fV%.1f", x.at(q.x), y.at(q.low), y.at(q.high))
	}
	b.WriteString("\"/></g>\n")
}

// The lines of the grid are at 1, 2 and 5 times powers of ten.

func roundDown(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, digit := range []float64{5, 2} {
		if digit*power <= v {
			return digit * power
		}
	}
	return power
}

func roundUp(v float64) float64 {
	if down := roundDown(v); down < v {
		return next(down)
	}
	return v
}

func next(v float64) float64 {
	switch power := math.Pow(10, math.Floor(math.Log10(v)+1e-9)); math.Round(v / power) {
	case 1:
		return 2 * power
	case 2:
		return 5 * power
	default:
		return 10 * power
	}
}

// short writes a number in few letters.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}
